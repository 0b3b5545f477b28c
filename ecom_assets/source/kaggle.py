"""The published data set on Kaggle: download it, and recognize its files.

What belongs here: the one call to `kagglehub`, its failures in plain words, and
the comparison with the published files. Placing the files is `acquire`'s matter.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.source import KaggleError
from ecom_assets.source.folder import locate
from ecom_assets.source.places import Folder

log = logging.getLogger(__name__)

URL = "https://www.kaggle.com/datasets/"


def _otherwise(handle: str) -> str:
    return (
        f"Or fetch the archive by hand from {URL}{handle}, unpack it, and set --source (ECOM_SOURCE) to that folder; "
        "--source synthetic needs neither network nor account."
    )


def download(dataset: Dataset) -> dict[str, Path]:
    """Download the data set into kagglehub's cache, or find it there.

    Args:
        dataset: The tables whose files are expected.

    Returns:
        Table -> file in the cache.

    Raises:
        KaggleError: No network, no or wrong credentials, no consent, or a broken download.
        SourceNotFoundError: The data set came without one of the files.
    """
    with _explained(dataset.kaggle):
        # Imported late: it is slow to load, and of use to this one source alone.
        import kagglehub

        folder = Path(kagglehub.dataset_download(dataset.kaggle))
    return {table: folder / file.path for table, file in locate(Folder(folder), dataset).items()}


def recognize(files: dict[str, Path], dataset: Dataset) -> dict[str, bool]:
    """Find out which files are the published ones, by size and SHA-256, and log it.

    Args:
        files: Table -> file.
        dataset: The tables, with what is known of their published files.

    Returns:
        Table -> whether it is the published file, byte for byte.

    Raises:
        OSError: A file can't be read.
    """
    return {name: _is_published(dataset.tables[name], file) for name, file in files.items()}


def _is_published(table: Table, file: Path) -> bool:
    name, known = table.csv, table.published
    if known is None:
        return False
    found = file.stat().st_size
    if found != known.bytes:
        log.warning("%s: not the published %s: expected %d bytes, found %d", file, name, known.bytes, found)
        return False
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    if not digest.startswith(known.sha256):
        log.warning("%s: not the published %s: expected SHA-256 %s…, found %s", file, name, known.sha256, digest)
        return False
    log.info("%s: the published %s", file, name)
    return True


@contextmanager
def _explained(handle: str) -> Generator[None]:
    """Turn what kagglehub raises into a KaggleError that names the remedy."""
    import requests
    from kagglehub import exceptions

    try:
        yield
    except (exceptions.UnauthenticatedError, exceptions.CredentialError) as error:
        raise KaggleError(_no_credentials(handle, error)) from error
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise KaggleError(_refused(handle, status, error)) from error
    except requests.RequestException as error:
        raise KaggleError(
            f"Kaggle can't be reached, or the connection broke, so {handle} was not downloaded ({error}). "
            f"Check the network and HTTPS_PROXY, then try again. {_otherwise(handle)}"
        ) from error
    except (exceptions.DataCorruptionError, exceptions.BackendError) as error:
        raise KaggleError(
            f"Kaggle sent {handle} incomplete or not at all ({error}). Try again. {_otherwise(handle)}"
        ) from error


def _no_credentials(handle: str, error: Exception) -> str:
    return (
        f"Kaggle requires a login to download {handle}, and found no valid credentials ({error}). Create a token at "
        "https://www.kaggle.com/settings and save it as ~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY. "
        f"{_otherwise(handle)}"
    )


def _refused(handle: str, status: int | None, error: Exception) -> str:
    match status:
        case 401:
            return _no_credentials(handle, error)
        case 403:
            return (
                f"Kaggle refuses {handle} (HTTP 403: {error}). Sign in at {URL}{handle}, accept the license there "
                f"(press Download once), and use a token of that same account. {_otherwise(handle)}"
            )
        case 404:
            return f"Kaggle has no data set {handle} any more (HTTP 404). {_otherwise(handle)}"
        case _:
            return f"Kaggle answered HTTP {status} for {handle} ({error}). Try again later. {_otherwise(handle)}"
