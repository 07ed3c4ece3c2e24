"""The photographs from Kaggle, or a quick and plain word that they cannot be had."""

import ssl
import threading
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

from nutclf.data.folder import scan
from nutclf.errors import UserError

HANDLE = "gpiosenka/tree-nuts-image-classification"
COUNTS = {"train": 1163, "valid": 50, "test": 50}  # images published, by split


class DataUnavailable(UserError):
    """The data set cannot be fetched now; nothing is wrong with what the user gave."""


def fetch(seconds_to_answer: float = 6.0) -> Path:
    """The folder of the data set, downloaded once into kagglehub's cache (`KAGGLEHUB_CACHE`).

    `seconds_to_answer` limits the wait for Kaggle's first answer, not the download. Raises
    `DataUnavailable` when no copy can be had, `UserError` when it is not the published data set.
    """
    try:
        folder = _download(seconds_to_answer)
    except Exception as error:  # kagglehub lets through what requests, zipfile and the disk raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataUnavailable(
            f"Kaggle's {HANDLE} cannot be fetched ({reason}). To use photographs set NUTCLF_DATA "
            f"to a folder that has them, or try again with a network."
        ) from error
    # The splits lie in the download itself or in a folder inside of it.
    found = [path.parent for path in folder.rglob("train") if path.is_dir()]
    root = min(found, key=lambda path: len(path.parts), default=folder)
    counts = scan(root).files["split"].value_counts(sort=False).to_dict()
    if counts != COUNTS:
        raise UserError(
            f"Kaggle's {HANDLE} should have {COUNTS} images, but {root} has {counts}. Delete that "
            f"folder and run again, or set NUTCLF_DATA to a folder of your own."
        )
    return root


def _download(seconds_to_answer: float) -> Path:
    import kagglehub  # takes half a second, and the images may be at hand
    from kagglehub.config import get_cache_folder
    from kagglesdk.kaggle_env import is_in_kaggle_notebook

    # kagglehub marks each `versions/N` that is whole, but would ask for the newest even so.
    kept = Path(get_cache_folder(), "datasets", HANDLE)
    copies = [kept / "versions" / mark.stem for mark in kept.glob("*.complete")]
    if whole := [copy for copy in copies if copy.is_dir()]:
        return max(whole, key=lambda copy: int(copy.name))
    if not is_in_kaggle_notebook():  # there the data come another way, without internet too
        _require_answer(seconds_to_answer)
    return Path(kagglehub.dataset_download(HANDLE))


def _require_answer(seconds: float) -> None:
    """Raises OSError unless Kaggle's server, or a proxy before it, says anything at all in time."""
    # kagglehub's first request has no time limit and a name look-up cannot have one: behind a
    # firewall that drops packets both wait for minutes. Hence a thread that is left behind.
    from kagglesdk.kaggle_env import get_endpoint, get_env

    failure: list[object] = [f"no answer within {seconds:g} s"]

    def ask() -> None:
        try:
            # `urlopen` would keep the proxies of its first call for the life of the process.
            opener = urllib.request.build_opener()
            opener.open(get_endpoint(get_env()), timeout=seconds).close()
            failure.clear()
        except HTTPError as refusal:  # an answer all the same
            failure.clear()
            refusal.close()
        except Exception as error:
            failure[0] = getattr(error, "reason", error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    # Python and kagglehub may trust different certificates; the server did answer.
    if failure and not isinstance(failure[0], ssl.SSLError):
        raise OSError(str(failure[0]))
