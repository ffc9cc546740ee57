"""Array functions that every score rests on: NumPy and numba here, CuPy where there is a device.

Nothing in this folder knows of files, labels or metrics, and nothing here imports more than NumPy,
SciPy and numba, so that a bare machine can test it. Kernels release the interpreter's lock and are
given their threads; none starts a thread pool of its own.
"""

from __future__ import annotations
