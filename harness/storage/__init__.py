"""Files and folders on this machine and on object stores, and digests of what is in them.

`paths` reads and writes both alike and gives a finished folder its name in one step. `hashing`
identifies content, `local_cache` copies a remote store once to each machine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.storage.hashing import DIGEST_BYTES as DIGEST_BYTES
    from harness.storage.hashing import canonical as canonical
    from harness.storage.hashing import content_digest as content_digest
    from harness.storage.hashing import remembered_digest as remembered_digest
    from harness.storage.hashing import text_digest as text_digest
    from harness.storage.local_cache import download as download
    from harness.storage.local_cache import folder_here as folder_here
    from harness.storage.local_cache import forget_copy as forget_copy
    from harness.storage.local_cache import size_of as size_of
    from harness.storage.local_cache import store_here as store_here
    from harness.storage.lock import exclusive_lock as exclusive_lock
    from harness.storage.object_store import client as client
    from harness.storage.object_store import client_options as client_options
    from harness.storage.paths import cache_folder as cache_folder
    from harness.storage.paths import data_folders as data_folders
    from harness.storage.paths import exists as exists
    from harness.storage.paths import find_data_file as find_data_file
    from harness.storage.paths import is_remote as is_remote
    from harness.storage.paths import parse_size as parse_size
    from harness.storage.paths import publish as publish
    from harness.storage.paths import read_text as read_text
    from harness.storage.paths import refuse_url as refuse_url
    from harness.storage.paths import scratch_name as scratch_name

_NAMES = {
    "hashing": "DIGEST_BYTES canonical content_digest remembered_digest text_digest",
    "local_cache": "download folder_here forget_copy size_of store_here",
    "lock": "exclusive_lock",
    "object_store": "client client_options",
    "paths": (
        "cache_folder data_folders exists find_data_file is_remote parse_size publish "
        "read_text refuse_url scratch_name"
    ),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
