"""The clients of object stores: how one is opened, and what its failures are called.

Endpoint and credentials come from where every tool of the store looks for them (``AWS_PROFILE``,
``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``~/.aws``, the machine's role) and from nowhere else:
no job or cluster file names them, so that no run folder can leak them. So does the patience:
``AWS_MAX_ATTEMPTS`` and ``AWS_RETRY_MODE``.

Clients raise what they like, much of it no `OSError`; `translating` makes one `StorageError` of it
that names the URL. What it gave up: telling a lost connection from a store that is down.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import fsspec

from harness.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 32
"""How many requests one process has under way; botocore's own ten leave a far store idle."""

_EXTRAS = {"s3": "virtual-cell-harness[s3]", "s3a": "virtual-cell-harness[s3]"}

_CLIENTS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("botocore.parsers", "ResponseParserError"),
    ("aiohttp", "ClientError"),
)
"""What the libraries beneath raise besides `OSError`."""


def client_options(url: str) -> dict[str, Any]:
    """Return the options that open the client of a URL, in this project and in Zarr alike.

    Listings are not cached: another process writes to the same folders. A file is fetched by one
    request; s3fs would ask for its size first, to fetch files over 50 MB in parts.
    """
    options: dict[str, Any] = {"use_listings_cache": False}
    if _protocol(url) in _EXTRAS:
        options["max_concurrency"] = 1
        options["config_kwargs"] = {"max_pool_connections": CONNECTIONS}
    return options


def client(url: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of a URL, one for each process, and the URL's key in it."""
    try:
        filesystem, key = fsspec.core.url_to_fs(url, **client_options(url))
    except ImportError as error:
        extra = _EXTRAS.get(_protocol(url))
        advice = f"Install it with: pip install '{extra}'" if extra else str(error)
        raise StorageError(
            f"{url}: the package that reads and writes {_protocol(url)}:// is missing. {advice}"
        ) from error
    except ValueError as error:
        raise StorageError(
            f"{url}: {error}. Expected s3://BUCKET/PREFIX or a local path."
        ) from error
    return filesystem, str(key)


@contextmanager
def translating(url: str) -> Iterator[None]:
    """Turn a client's failure within the block into a `StorageError` that names the URL.

    ``FileNotFoundError`` and ``FileExistsError`` are answers, and pass.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, StorageError):
        raise
    except _failures() as error:
        kind = "refused" if isinstance(error, PermissionError) else "could not be reached"
        raise StorageError(
            f"{url}: the object store {kind}, also when asked again: {type(error).__name__}: "
            f"{error}. Check the network, the credentials (AWS_PROFILE or AWS_ACCESS_KEY_ID) and "
            "AWS_ENDPOINT_URL. What was finished is kept; the same command goes on from there."
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """List the exceptions of clients; a library that was never loaded has raised nothing."""
    loaded = ((sys.modules.get(module), name) for module, name in _CLIENTS)
    theirs = (getattr(module, name) for module, name in loaded if module is not None)
    return (OSError, HTTPException, *theirs)


def _protocol(url: str) -> str:
    return url.partition("://")[0]
