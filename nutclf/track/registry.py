"""MLflow's model registry: versions, and the aliases that point at them."""

from dataclasses import dataclass

from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from nutclf.config import Objective
from nutclf.track.runs import WITH_A_MODEL, quoted

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""Aliases: the best, the latest that did not beat it, and the champion before this one."""


@dataclass(frozen=True)
class Registry:
    """The versions of the registered model called `name`."""

    client: MlflowClient
    name: str

    def at(self, alias: str) -> ModelVersion | None:
        """The version that an alias points at, if there is one."""
        try:
            return self.client.get_model_version_by_alias(self.name, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def register(self, model_uri: str, run_id: str, tags: dict[str, str]) -> ModelVersion:
        """Makes a version of a logged model, or returns the one that it has already."""
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            how = f'`mlflow.keras.load_model("models:/{self.name}@{CHAMPION}")` loads the best.'
            self.client.create_registered_model(self.name, description=how)
        versions = self.client.search_model_versions(f"name = '{self.name}'")
        found = next((version for version in versions if version.source == model_uri), None)
        _, is_logged, model_id = model_uri.partition("models:/")
        # A server asks for the id beside the address, a database does not.
        return found or self.client.create_model_version(
            self.name, model_uri, run_id, tags=tags, model_id=model_id if is_logged else None
        )

    def describe(self, version: ModelVersion, text: str, tags: dict[str, str]) -> None:
        """Writes a version's description, and tags beside it."""
        self.client.update_model_version(self.name, version.version, description=text)
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, version.version, key, value)

    def point(self, alias: str, version: ModelVersion) -> None:
        """Moves an alias, and reads it back; `RuntimeError` where it is not there then."""
        self.client.set_registered_model_alias(self.name, alias, version.version)
        now = self.at(alias)
        if now is None or now.version != version.version:
            raise RuntimeError(
                f"alias {alias} of {self.name} was set to version {version.version}, "
                f"but the registry answers {now.version if now else 'nothing'}"
            )


def model_uri(client: MlflowClient, run: MlflowRun) -> str:
    """Address of the model that a run logged."""
    if run.outputs and run.outputs.model_outputs:
        return f"models:/{run.outputs.model_outputs[-1].model_id}"
    raise LookupError(f"run {run.info.run_name!r} logged no model")


def best_run(
    client: MlflowClient,
    experiment_id: str,
    study_name: str,
    objective: Objective,
    kind: str = "",
) -> MlflowRun | None:
    """The finished run of a study with the best objective, a trial's or (`kind`) a probe's, if any.

    Of equal ones the earlier: a probe before the trial that does no better.
    """
    order = "DESC" if objective.direction == "maximize" else "ASC"
    query = f"tags.study_name = {quoted(study_name)} AND attributes.status = 'FINISHED'"
    kinds = f"tags.kind = '{kind}'" if kind else WITH_A_MODEL
    runs = client.search_runs(
        [experiment_id],
        f"{query} AND {kinds}",
        order_by=[f"metrics.`{objective.metric}` {order}", "attributes.start_time ASC"],
        max_results=1,
    )
    return runs[0] if runs else None
