"""Aliases that point nowhere: the version was deleted, or its files are gone."""

import functools

from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from nutclf.track.doctor.databases import Backups
from nutclf.track.doctor.finding import Finding
from nutclf.track.doctor.moved import local_folder
from nutclf.track.store import Store

_AGAIN = (
    "`make promote` with the STUDY and DATA of a sweep chooses anew; a study whose best model has "
    "lost its files needs a sweep under another NAME"
)


def find_dangling_aliases(store: Store, backups: Backups) -> list[Finding]:
    """Aliases of all registered models that lead to no model that can be opened."""
    client = store.client()
    return [
        Finding(
            "alias",
            f"{model.name}@{alias} points at version {version}, {reason}",
            functools.partial(_remove, store, backups, model.name, alias),
        )
        for model in _models(client)
        for alias, version in model.aliases.items()
        if (reason := _why_nowhere(client, model.name, version))
    ]


def _models(client: MlflowClient) -> list[RegisteredModel]:
    models, token = [], None
    while True:
        page = client.search_registered_models(page_token=token)
        models += page
        if not (token := page.token):
            return models


def _why_nowhere(client: MlflowClient, name: str, version: str) -> str | None:
    try:
        folder = local_folder(client.get_model_version_download_uri(name, version))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return "which was deleted"
        raise
    if folder is None:  # on a server, which looks after its own
        return None
    description = folder / "MLmodel"
    if not description.is_file():
        return "whose files are gone"
    of_keras = "keras_version:" in description.read_text(encoding="utf-8")
    if of_keras and not (folder / "data" / "model.keras").is_file():
        return "whose network is gone"
    return None


def _remove(store: Store, backups: Backups, name: str, alias: str) -> str:
    backups.before_changing(store.tracking_uri)
    store.client().delete_registered_model_alias(name, alias)
    return f"{name}@{alias} is removed; {_AGAIN}"
