"""Which backend is chosen, why, and what is said where there is no device: none is needed here."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from harness.kernels import backend
from harness.kernels.backend import Backend, choose, namespace_of, why_no_device


def pretend(monkeypatch: pytest.MonkeyPatch, **parts: object) -> None:
    """Put a module in CuPy's place, and let devices be visible."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    module = ModuleType("cupy")
    vars(module).update({"ndarray": type("ndarray", (), {}), **parts})
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(backend, "find_spec", lambda name: name)


def fails(message: str, kind: type[Exception] = RuntimeError):  # type: ignore[no-untyped-def]
    def call(*_: object) -> None:
        raise kind(message)

    return call


def with_device(**properties: object) -> SimpleNamespace:
    """What CuPy's `cuda` has where a device answers."""
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        getDeviceProperties=lambda _: {"name": b"Some GPU", **properties},
        memGetInfo=lambda: (1000, 4000),
    )
    return SimpleNamespace(runtime=runtime)


NO_DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient\nfor the runtime"


def test_the_cpu_is_had_for_the_asking() -> None:
    chosen = choose("cpu")
    assert (chosen.name, chosen.xp) == ("cpu", np)
    assert chosen.reason == "the CPU was asked for"


def test_without_cupy_auto_takes_the_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(backend, "find_spec", lambda _: None)
    chosen = choose("auto")
    assert chosen.name == "cpu"
    assert chosen.reason == "CuPy is not installed (pip install 'virtual-cell-harness[gpu]')"
    with pytest.raises(RuntimeError, match="'gpu' cannot be used: CuPy is not installed"):
        choose("gpu")


def test_without_a_driver_auto_takes_the_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(
        monkeypatch, cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=fails(NO_DRIVER)))
    )
    assert choose("auto") == Backend("cpu", why_no_device())
    assert why_no_device() == (
        "CuPy finds no GPU that computes: cudaErrorInsufficientDriver: CUDA driver version is "
        "insufficient"
    )
    with pytest.raises(RuntimeError, match="make a device visible, or use backend 'cpu'"):
        choose("gpu")


def test_a_device_that_cannot_compile_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = fails('Failure finding "libnvrtc.so.13"')
    pretend(monkeypatch, cuda=with_device(), arange=missing)
    assert "libnvrtc" in why_no_device()


def test_cupy_that_cannot_be_imported_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(backend, "_cupy", fails("libcudart.so.13: cannot open", ImportError))
    assert why_no_device().startswith("CuPy cannot be imported: libcudart.so.13: cannot open")


@pytest.mark.parametrize("hidden", ["", "-1"], ids=["empty", "minus-one"])
def test_hidden_devices_are_not_asked_for(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    pretend(monkeypatch, cuda=fails("CUDA was initialised"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert choose("auto").reason == f"no GPU is visible (CUDA_VISIBLE_DEVICES={hidden!r})"


def test_a_device_that_computes_is_taken_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SimpleNamespace(free_bytes=lambda: 200)
    parts = {"arange": np.arange, "get_default_memory_pool": lambda: pool}
    pretend(monkeypatch, cuda=with_device(), **parts)
    for asked in ("auto", "gpu"):
        chosen = choose(asked)  # type: ignore[arg-type]
        assert (chosen.name, chosen.reason) == ("gpu", "Some GPU")
        assert chosen.free_memory() == 1200
        assert chosen.xp is sys.modules["cupy"]


def test_arrays_say_which_library_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    cupy = sys.modules["cupy"]
    assert namespace_of(np.zeros(2), cupy.ndarray()) is cupy
    assert namespace_of(np.zeros(2)) is np


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown backend 'cuda'"):
        choose("cuda")  # type: ignore[arg-type]


def test_the_cpu_never_imports_cupy() -> None:
    code = (
        "import sys; from harness.kernels.backend import choose;"
        "import harness.kernels.rank_test_stream; choose('cpu'); print('cupy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
