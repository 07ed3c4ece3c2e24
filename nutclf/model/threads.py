"""How many processors this process may use."""

import os


def n_threads() -> int:
    """`TF_NUM_INTRAOP_THREADS`, which TensorFlow reads too, else all that the system grants.

    Several workers on one machine divide the processors by it.
    """
    asked = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    granted = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(granted(0)) if granted else os.cpu_count() or 1
