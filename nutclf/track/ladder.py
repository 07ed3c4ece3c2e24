"""The run that holds one walk up the ladder; its rungs are child runs, as trials are of a study."""

from collections.abc import Mapping

from nutclf.track.runs import Run, source_tags
from nutclf.track.store import Store


def ladder_run(store: Store, experiment_id: str, name: str, tags: Mapping[str, str]) -> Run:
    """A new run, RUNNING; unlike a study's, it is never found again: each walk has its own.

    Args:
      store: of the records.
      experiment_id: the ladder's experiment, not a study's.
      name: for people.
      tags: what the run says of its data.
    """
    client = store.client()
    own = {"study_name": name, "kind": "ladder"} | source_tags() | dict(tags)
    return Run(client, client.create_run(experiment_id, run_name=name, tags=own).info.run_id)
