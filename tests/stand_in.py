"""What looks like CuPy and computes with NumPy, for tests where there is no device.

As strict as a device: an array neither becomes a NumPy array by itself nor mixes with one, and the
module has only what is listed here. So a host array that leaks into work on the device is found
without one; whether the device computes as NumPy does is not.
"""

from __future__ import annotations

import operator
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

SCALARS = (bool, int, float, np.generic, np.dtype, type, str, slice, type(None))

FUNCTIONS = (
    *("abs", "arange", "ascontiguousarray", "bincount", "cumsum", "empty", "empty_like"),
    *("flatnonzero", "log1p", "nonzero", "ones", "searchsorted", "sqrt", "unique", "where"),
    "zeros",
)
"""What CuPy 14 has and kernels use."""

METHODS = ["all", "astype", "cumsum", "ravel", "reshape", "sum", "view"]

OPERATORS = ("add", "sub", "mul", "truediv", "lshift", "rshift", "and", "or")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def inner(value: Any) -> Any:
    """Return the NumPy array in a device's, or a scalar; refuse what a device cannot take."""
    if isinstance(value, ndarray):
        return value.data
    if isinstance(value, tuple | list):
        return type(value)(inner(part) for part in value)
    if isinstance(value, SCALARS):
        return value
    raise TypeError(f"Unsupported type {type(value)}")  # CuPy's own words


def outer(value: Any) -> Any:
    """Wrap what NumPy returned; a device has arrays of no dimension instead of scalars."""
    if isinstance(value, tuple):
        return tuple(outer(part) for part in value)
    return ndarray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


class ndarray:  # noqa: N801 - CuPy's name
    """An array on the device."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: np.ndarray) -> None:
        self.data = data

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __getattr__(self, name: str) -> Any:
        if name in {"dtype", "ndim", "shape", "size"}:
            return getattr(self.data, name)
        if name == "T":
            return ndarray(self.data.T)
        if name in METHODS:
            return lambda *given, **options: outer(
                getattr(self.data, name)(*inner(given), **options)
            )
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __getitem__(self, key: Any) -> ndarray:
        return ndarray(np.asarray(self.data[inner(key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.data[inner(key)] = inner(value)

    def sort(self) -> None:
        """Sort in place, as only arrays of one dimension are sorted by radix."""
        assert self.data.ndim == 1
        self.data.sort()

    def set(self, host: np.ndarray) -> None:
        """Copy from the host."""
        assert type(host) is np.ndarray
        np.copyto(self.data, host)

    def get(self) -> np.ndarray:
        """Copy to the host."""
        return self.data.copy()

    def item(self) -> Any:
        """Return the one element."""
        return self.data.item()


def _add_operators() -> None:
    def make(function: Any, *, swapped: bool = False, in_place: bool = False) -> Any:
        def method(self: ndarray, other: Any) -> Any:
            if in_place:
                self.data = function(self.data, inner(other))
                return self
            pair = (inner(other), self.data) if swapped else (self.data, inner(other))
            return outer(function(*pair))

        return method

    for name in (*OPERATORS, *COMPARISONS):
        plain = getattr(operator, f"__{name}__")
        setattr(ndarray, f"__{name}__", make(plain))
        if name in {"add", "sub", "mul", "truediv"}:
            setattr(ndarray, f"__r{name}__", make(plain, swapped=True))
        if hasattr(operator, f"__i{name}__"):
            setattr(ndarray, f"__i{name}__", make(getattr(operator, f"__i{name}__"), in_place=True))


_add_operators()


def _wrapped(name: str) -> Any:
    function = getattr(np, name)
    return lambda *given, **options: outer(
        function(*inner(given), **{key: inner(value) for key, value in options.items()})
    )


def _asarray(array: Any, dtype: Any = None) -> ndarray:
    data = array.data if isinstance(array, ndarray) else np.array(array)
    return ndarray(data.astype(dtype) if dtype is not None else data)


def module(free: int = 1 << 30) -> ModuleType:
    """Return what stands in for CuPy, on a device with so much free memory."""
    made = ModuleType("cupy")
    pool = SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        getDeviceProperties=lambda _: {"name": b"stand-in"},
        memGetInfo=lambda: (free, free),
    )
    stream = SimpleNamespace(synchronize=lambda: None)
    cuda = SimpleNamespace(
        runtime=runtime,
        Stream=lambda non_blocking: nullcontext(),
        alloc_pinned_memory=bytearray,
        get_current_stream=lambda: stream,
    )
    functions = {name: _wrapped(name) for name in FUNCTIONS}
    vars(made).update(functions, ndarray=ndarray, asarray=_asarray, cuda=cuda)
    vars(made).update(get_default_memory_pool=lambda: pool)
    return made
