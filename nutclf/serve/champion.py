"""The champion, opened to be asked."""

from nutclf.errors import UserError
from nutclf.serve.recognise import Recogniser
from nutclf.track.models import load_metadata, load_model
from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.store import Store


def champion_uri(store: Store, name: str) -> str:
    """The address of the champion of registered model `name`.

    Raises:
      UserError: there is none.
    """
    if Registry(store.prepare().client(), name).at(CHAMPION) is None:
        raise UserError(
            f"{name!r} has no champion in {store.tracking_uri}; run `make sweep` first, or name "
            "the store with STORE= and the model with MODEL=."
        )
    return f"models:/{name}@{CHAMPION}"


def open_champion(store: Store, name: str) -> Recogniser:
    """Its network, opened in safe mode. Raises `UserError`: none, or not what was saved."""
    uri = champion_uri(store, name)
    return Recogniser(load_model(store, uri), load_metadata(store, uri))
