"""The process of a verb: quiet, repeatable, and heard at once."""

import logging
import os
import warnings

from nutclf.data.quiet import native_messages_hidden


def quiet() -> None:
    """Keeps libraries' own announcements out of what a person reads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with native_messages_hidden():  # TensorFlow prints on import, before a setting is heard
        import tensorflow  # noqa: F401
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Promotion opens several models, and TensorFlow takes that for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def seed_everything(seed: int) -> None:
    """Makes TensorFlow repeat itself bit for bit on the same machine."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    for gpu in tf.config.list_physical_devices("GPU"):
        # Otherwise the first process takes all of a GPU's memory.
        tf.config.experimental.set_memory_growth(gpu, True)


def say(line: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(line, flush=True)
