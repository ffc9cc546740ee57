"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.s3_server import ObjectStore

BARE = any(find_spec(name) is None for name in ("anndata", "zarr", "pandas", "ray"))
"""Whether only kernels can be tested here, as on a machine lent for its GPU."""

KERNELS_ALONE = {"kernels/test_backend.py", "kernels/test_rank_test_device.py"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the settings of plugins that a bare machine lacks."""
    if find_spec("pytest_timeout") is None:
        parser.addini("timeout", "seconds after which pytest-timeout ends a test")


def pytest_configure() -> None:
    """Hear SIGINT: a shell's background job is deaf to it, and so would be all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str | None:
    """Say at the top what is left out on a bare machine."""
    names = ", ".join(sorted(KERNELS_ALONE))
    return f"bare machine: the harness is not installed, only {names} run" if BARE else None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out, on a bare machine, what could not be imported."""
    left_out = (
        collection_path.suffix == ".py"
        and "/".join(collection_path.parts[-2:]) not in KERNELS_ALONE
    )
    return True if BARE and left_out else None


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that gives every test the same numbers."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data_file() -> Callable[[str], Path]:
    """Find a real screen under HARNESS_DATA; skip, saying so, where there is none."""

    def find(name: str) -> Path:
        folder = os.environ.get("HARNESS_DATA")
        if not folder:
            pytest.skip(f"HARNESS_DATA is not set: the test on the real screen {name} does not run")
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"{name} is not in HARNESS_DATA={folder}")
        return path

    return find


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3-compatible server that every client in these tests finds by the usual variables."""
    pytest.importorskip("moto", reason="moto is not installed: nothing runs on an object store")
    from tests.s3_server import ObjectStore

    store = ObjectStore(tmp_path_factory.mktemp("s3"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        store.make_bucket()
        yield store
    store.close()


@pytest.fixture(scope="session")
def remote_screen(object_store: ObjectStore) -> str:
    """A small screen on the object store."""
    from harness.data.simulation.screens import simulate  # not for GPU machines, which have no Zarr

    path = f"s3://{object_store.bucket}/shared/tiny.zarr"
    simulate("tiny", path)
    return path


@pytest.fixture
def bucket(object_store: ObjectStore, tmp_path: Path) -> str:
    """A prefix of its own on the object store."""
    return f"s3://{object_store.bucket}/{tmp_path.name}"
