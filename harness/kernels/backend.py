"""Which array library computes: NumPy with numba on the CPU, or CuPy on a CUDA device.

The only module that imports CuPy, and only once a device was asked for and may be there: work for
the CPU never initialises a device, nor takes memory on one. What `cpu` and `gpu` have in common is
written over `Backend.xp`; what only a device has (streams, pinned memory, running out of memory) is
a method here, with its plain counterpart for NumPy, so that the same code is tested without one.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Choice = Literal["auto", "cpu", "gpu"]
"""What may be asked for."""

_LOG = logging.getLogger(__name__)

INSTALL = "pip install 'virtual-cell-harness[gpu]'"


def namespace_of(*arrays: object) -> Any:
    """Return the module (NumPy or CuPy) whose functions accept these arrays."""
    cupy = sys.modules.get("cupy")
    if cupy is not None and any(isinstance(array, cupy.ndarray) for array in arrays):
        return cupy
    return np


@dataclass(frozen=True, slots=True)
class Backend:
    """Where arrays live, and how they get there and back.

    Parameters
    ----------
    name
        ``cpu`` or ``gpu``.
    reason
        Why this one, or which device, in one line.
    """

    name: Literal["cpu", "gpu"]
    reason: str

    @property
    def xp(self) -> Any:
        """The module of array functions."""
        return _cupy() if self.name == "gpu" else np

    def asarray(self, array: Any) -> Any:
        """Return an array on the device; where it is there already, itself."""
        return self.xp.asarray(array)

    def asnumpy(self, array: Any) -> np.ndarray:
        """Return an array in the memory of this process, once it is computed."""
        found: np.ndarray = array.get() if self.name == "gpu" else np.asarray(array)
        return found

    def send(self, array: np.ndarray) -> Any:
        """Begin to copy an array to the device; it must not change until the stream's end."""
        if self.name == "cpu":
            return array
        there = self.xp.empty(array.shape, array.dtype)
        there.set(array)  # on the current stream; returns at once if `array` is pinned
        return there

    def buffer(self, size: int) -> np.ndarray:
        """Return `size` bytes of host memory that a device can read by itself (pinned)."""
        if self.name == "cpu":
            return np.empty(size, np.uint8)
        memory = self.xp.cuda.alloc_pinned_memory(max(1, size))
        return np.ndarray(size, np.uint8, buffer=memory)

    def stream(self) -> AbstractContextManager[Any]:
        """Return a stream: within it, what a thread does on the device waits for itself alone."""
        return self.xp.cuda.Stream(non_blocking=True) if self.name == "gpu" else nullcontext()

    def synchronize(self) -> None:
        """Wait until everything begun on this thread's stream is done."""
        if self.name == "gpu":
            self.xp.cuda.get_current_stream().synchronize()

    def free_memory(self) -> int:
        """Return how many bytes more can be allocated."""
        if self.name == "cpu":
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        free, _ = self.xp.cuda.runtime.memGetInfo()
        # What the pool keeps for later is free to us, though the driver counts it as taken.
        return int(free) + int(self.xp.get_default_memory_pool().free_bytes())

    def release(self) -> None:
        """Give unused memory back to the device, so that blocks of other sizes fit."""
        if self.name == "gpu":
            self.xp.get_default_memory_pool().free_all_blocks()

    @property
    def out_of_memory(self) -> type[Exception]:
        """What is raised where an array does not fit (CuPy's own error is a MemoryError)."""
        return MemoryError


def choose(backend: Choice = "auto") -> Backend:
    """Return the backend to use.

    Parameters
    ----------
    backend
        ``cpu``; ``gpu``, an error without a device that computes; or ``auto``, the device where
        there is one, else the CPU, and `Backend.reason` says why.

    Raises
    ------
    RuntimeError
        ``gpu`` was asked for and cannot be had; the text says what to do.
    """
    if backend not in get_args(Choice):
        raise ValueError(f"Unknown backend {backend!r}. Expected one of {get_args(Choice)}.")
    if backend == "cpu":
        return Backend("cpu", "the CPU was asked for")
    missing = why_no_device()
    if not missing:
        return Backend("gpu", _device_name())
    if backend == "gpu":
        raise RuntimeError(
            f"Backend 'gpu' cannot be used: {missing}. Expected CuPy and one visible CUDA device. "
            f"Install with {INSTALL}, make a device visible, or use backend 'cpu'."
        )
    _LOG.info("Computing on the CPU: %s.", missing)
    return Backend("cpu", missing)


def why_no_device() -> str:
    """Return why no device can compute, in one line without a full stop; empty if one can."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in {"", "-1"}:
        # Asked before CuPy is imported: CUDA reads the variable once, and a process that starts
        # it while the devices are hidden never sees them again.
        return f"no GPU is visible (CUDA_VISIBLE_DEVICES={visible!r})"
    if find_spec("cupy") is None:
        return f"CuPy is not installed ({INSTALL})"
    try:
        cupy = _cupy()
        # Counting devices is not enough: without the CUDA toolkit's libraries nothing compiles.
        cupy.cuda.runtime.getDeviceCount()
        cupy.arange(2).sum().item()
    except ImportError as error:
        return f"CuPy cannot be imported: {_first_line(error)} ({INSTALL})"
    except (RuntimeError, MemoryError) as error:
        return f"CuPy finds no GPU that computes: {_first_line(error)}"
    return ""


def _cupy() -> Any:
    import cupy

    return cupy


def _device_name() -> str:
    runtime = _cupy().cuda.runtime
    name = runtime.getDeviceProperties(runtime.getDevice())["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().partition("\n")[0].rstrip(" .,")
