"""The published data set on Kaggle: download it, and recognize its files.

What belongs here: the one call to `kagglehub`, its failures in plain words, and
the known sizes and checksums. Placing the files is `acquire`'s matter.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ecom_assets.dataset.model import Dataset
from ecom_assets.source import KaggleError
from ecom_assets.source.folder import locate

log = logging.getLogger(__name__)

HANDLE = "bytadit/transactional-ecommerce"
URL = f"https://www.kaggle.com/datasets/{HANDLE}"

PUBLISHED = {
    "customer": (26_095_446, "d4c35cd6"),
    "product": (4_332_000, "cd86bd2d"),
    "transactions": (256_299_347, "5c57b438"),
    "click_stream": (1_715_297_455, "942b34c4"),
}
"""Table -> size in bytes and first digits of the SHA-256 of the published file."""

_OTHERWISE = (
    f"Or fetch the archive by hand from {URL}, unpack it, and set --source (ECOM_SOURCE) to that folder; "
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
    with _explained():
        # Imported late: it is slow to load, and of use to this one source alone.
        import kagglehub

        folder = Path(kagglehub.dataset_download(HANDLE))
    return locate(folder, dataset)


def recognize(files: dict[str, Path]) -> dict[str, bool]:
    """Find out which files are the published ones, by size and SHA-256, and log it.

    Args:
        files: Table -> file.

    Returns:
        Table -> whether it is the published file, byte for byte.

    Raises:
        OSError: A file can't be read.
    """
    return {table: _is_published(table, file) for table, file in files.items()}


def _is_published(table: str, file: Path) -> bool:
    size, prefix = PUBLISHED[table]
    found = file.stat().st_size
    if found != size:
        log.warning("%s: not the published %s.csv: expected %d bytes, found %d", file, table, size, found)
        return False
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    if not digest.startswith(prefix):
        log.warning("%s: not the published %s.csv: expected SHA-256 %s…, found %s", file, table, prefix, digest)
        return False
    log.info("%s: the published %s.csv", file, table)
    return True


@contextmanager
def _explained() -> Generator[None]:
    """Turn what kagglehub raises into a KaggleError that names the remedy."""
    import requests
    from kagglehub import exceptions

    try:
        yield
    except (exceptions.UnauthenticatedError, exceptions.CredentialError) as error:
        raise KaggleError(_no_credentials(error)) from error
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise KaggleError(_refused(status, error)) from error
    except requests.RequestException as error:
        raise KaggleError(
            f"Kaggle can't be reached, or the connection broke, so {HANDLE} was not downloaded ({error}). "
            f"Check the network and HTTPS_PROXY, then try again. {_OTHERWISE}"
        ) from error
    except (exceptions.DataCorruptionError, exceptions.BackendError) as error:
        raise KaggleError(
            f"Kaggle sent {HANDLE} incomplete or not at all ({error}). Try again. {_OTHERWISE}"
        ) from error


def _no_credentials(error: Exception) -> str:
    return (
        f"Kaggle requires a login to download {HANDLE}, and found no valid credentials ({error}). Create a token at "
        "https://www.kaggle.com/settings and save it as ~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY. "
        f"{_OTHERWISE}"
    )


def _refused(status: int | None, error: Exception) -> str:
    match status:
        case 401:
            return _no_credentials(error)
        case 403:
            return (
                f"Kaggle refuses {HANDLE} (HTTP 403: {error}). Sign in at {URL}, accept the license there "
                f"(press Download once), and use a token of that same account. {_OTHERWISE}"
            )
        case 404:
            return f"Kaggle has no data set {HANDLE} any more (HTTP 404). {_OTHERWISE}"
        case _:
            return f"Kaggle answered HTTP {status} for {HANDLE} ({error}). Try again later. {_OTHERWISE}"
