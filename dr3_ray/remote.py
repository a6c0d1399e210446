"""Stores of paths and URIs: which there are, and patience with one that does not answer for a while."""

import re
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from dr3_ray.errors import UserError, first_line
from dr3_ray.trust.secrets import real
from dr3_ray.uris import is_local, local_path, spelled_out

T = TypeVar("T")

UNUSABLE = (OSError, ValueError, ImportError, pa.ArrowException)  # whatever pyarrow says of a store
KINDS = ("s3", "gs", "abfs", "hdfs")
RETRYING = 30  # seconds
PATIENCE = 600.0  # seconds, for which a trial waits for a store
LONGEST_PAUSE = 20.0
# what object stores say when they may well answer later; anything else, such as a wrong key, will not get better
AWAY = ("NETWORK_CONNECTION", "SLOW_DOWN", "UNAVAILABLE", "INTERNAL_FAILURE", "THROTTLING", "TIMEOUT", "HTTP status 5")

SYNONYMS = {"gcs": "gs", "abfss": "abfs", "s3a": "s3"}  # schemes of the same stores


def open_store(store: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a path or URI, and the path in it. It gives up within a minute where nobody answers.

    Raises:
        OSError: it cannot be used.
        UserError: it cannot be what is meant.
    """
    store = spelled_out(store)
    try:
        filesystem, root = pafs.FileSystem.from_uri(
            str(local_path(store)) if is_local(store) else _limited(real(remote(store)))
        )
    except UserError:
        raise
    except UNUSABLE as error:
        raise OSError(first_line(error)) from None
    return filesystem, root.rstrip("/")


def remote(store: str) -> str:
    """Return the URI of a store that other machines and later processes see, as it is.

    Raises:
        UserError: it is of another kind, or says nothing of where in the store.
    """
    scheme, _, rest = store.partition("://")
    if (kind := SYNONYMS.get(scheme.lower(), scheme.lower())) not in KINDS:
        raise UserError(f"{scheme}:// is no store: give a path or a URI of {', '.join(f'{name}://' for name in KINDS)}")
    if kind != "hdfs" and not re.split("[/?#]", rest)[0].rpartition("@")[2]:
        raise UserError(f"{store} names no bucket: write {scheme}://BUCKET/PATH")
    return store


def _limited(uri: str) -> str:
    """Return a URI with a limit of time: Google's client would try for a quarter of an hour without a word."""
    if not uri.lower().startswith(("gs:", "gcs:")) or "retry_limit_seconds=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}retry_limit_seconds={RETRYING}"


def patiently(work: Callable[[], T]) -> T:
    """Return the result of `work`, which is tried again as long as its store does not answer.

    What a trial has learned is then not given up for a store that is away for some minutes.

    Raises:
        OSError: of another kind, or still.
    """
    end, pause = time.monotonic() + PATIENCE, 1.0
    while True:
        try:
            return work()
        except OSError as error:
            if not any(word in str(error) for word in AWAY) or time.monotonic() >= end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
