"""The challenge's archives: a tar of ``pred.h5ad.zst`` and ``watermark.txt``; packed and unpacked.

An archive comes from strangers, so nothing in it is trusted: only the two known members are looked
at, and they are written under names of ours; the file inside may not refer to files outside, and
neither of them may become larger than the limit. What it gave up: a limit on the ratio of sizes.
Cells that are all alike, an honest prediction, shrink two thousandfold.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import h5py
import zstandard

from harness.errors import DataError, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUFFIX = ".vcc"
CELLS, WATERMARK_FILE = "pred.h5ad.zst", "watermark.txt"
WATERMARK = b"vcc-prep"
MAX_UNPACKED = 32 * 2**30
"""Bytes that an archive may unpack to: 200,000 cells without a single zero take 27 GiB."""

_PIECE = 1 << 20
_AGAIN = "Make the archive with `harness prep`."


# --- packing ------------------------------------------------------------------------------------


def pack(
    cells: Path,
    archive: Path,
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write an archive of an `.h5ad`, flushed to disk; the same file gives the same bytes.

    Parameters
    ----------
    cells, archive
        The file to pack, and the file to write.
    threads
        For the compression; their number does not change the result.
    progress
        Called with the bytes done and all bytes.
    """
    size = cells.stat().st_size
    compressor = zstandard.ZstdCompressor(level=3, threads=threads, write_checksum=True)
    with cells.open("rb") as source, archive.open("wb") as out:
        out.write(bytes(tarfile.BLOCKSIZE))  # the header's place: it holds the compressed size
        done = packed = 0
        for piece in compressor.read_to_iter(source, size=size):
            packed += out.write(piece)
            if source.tell() > done:  # the last bytes read come out in many pieces
                done = source.tell()
                progress(done, size)
        out.write(_padding(packed))
        out.write(_header(WATERMARK_FILE, len(WATERMARK)) + WATERMARK + _padding(len(WATERMARK)))
        out.write(bytes(-out.tell() % tarfile.RECORDSIZE or tarfile.RECORDSIZE))
        out.seek(0)
        out.write(_header(CELLS, packed))
        out.flush()
        os.fsync(out.fileno())


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)  # one block, also from 8 GiB on


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


# --- unpacking ----------------------------------------------------------------------------------


@contextmanager
def unpacked(path: str, *, max_unpacked: int = MAX_UNPACKED) -> Iterator[Path]:
    """Give the `.h5ad` of an archive, unpacked beside the system's temporary files until the end.

    A `DataError` about the unpacked file names the archive instead.

    Raises
    ------
    DataError
        The archive is damaged, has members that it should not have or lacks one, unpacks to more
        than `max_unpacked` bytes, or its file refers to other files.
    """
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        cells = Path(folder) / CELLS.removesuffix(".zst")
        try:
            _unpack(path, cells, max_unpacked)
            _check_contained(path, cells, max_unpacked)
            yield cells
        except DataError as error:
            inside = f"{path} ({cells.name})"
            raise DataError(str(error).replace(str(cells), inside)) from None


class _Bounded(io.FileIO):
    """Refuses to read much at once, which only a header that claims to be huge makes tarfile do."""

    def read(self, size: int | None = -1, /) -> Any:
        if size is None or not 0 <= size <= _PIECE:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _unpack(path: str, cells: Path, max_unpacked: int) -> None:
    if not Path(path).is_file():
        what = "is a folder, expected a file" if Path(path).is_dir() else "no such file"
        raise DataError(f"{path}: {what}. Give the path of a {SUFFIX} archive.")
    try:
        with _Bounded(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            members = _members(path, archive)
            mark = _opened(archive, members[WATERMARK_FILE]).read(64)
            if mark.strip() != WATERMARK:
                raise DataError(
                    f"{path}: {WATERMARK_FILE} holds {mark!r}, expected {WATERMARK!r}. {_AGAIN}"
                )
            packed = _opened(archive, members[CELLS])
            with closing(packed), cells.open("wb") as out:
                _decompress(path, packed, out, max_unpacked)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{path}: not a whole tar archive ({error}). Expected {CELLS} and {WATERMARK_FILE} in "
            "an uncompressed tar. Copy or download it again, and compare sizes."
        ) from error
    except zstandard.ZstdError as error:
        raise DataError(
            f"{path}: {CELLS} cannot be decompressed ({error}). The archive is damaged: copy or "
            "download it again, and compare checksums."
        ) from error


def _members(path: str, archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    expected = (CELLS, WATERMARK_FILE)
    members: dict[str, tarfile.TarInfo] = {}
    for member in archive:  # stops at the first that is wrong, however many there are
        name = member.name.removeprefix("./")
        where = f"{path}: member {member.name!r}"
        if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
            raise DataError(f"{where} lies outside its folder. Nothing was unpacked. {_AGAIN}")
        if name not in expected:
            raise DataError(
                f"{where} is unexpected. Expected {listed(expected)} and nothing else. {_AGAIN}"
            )
        if not member.isreg() or member.issparse():
            raise DataError(f"{where} is a link, folder or device, expected a plain file. {_AGAIN}")
        if name in members:
            raise DataError(f"{where} is there twice, expected once. {_AGAIN}")
        members[name] = member
    if missing := [name for name in expected if name not in members]:
        raise DataError(
            f"{path}: lacks {listed(missing)}. Found {listed(members) or 'no member'}, expected "
            f"{listed(expected)}. It was cut short, or not made by a preparing tool. {_AGAIN}"
        )
    return members


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None, "only plain files come here"
    return file


def _decompress(path: str, packed: IO[bytes], out: IO[bytes], max_unpacked: int) -> None:
    """Decompress as far as the limit; a frame that announces more is not begun."""
    announced = zstandard.frame_content_size(packed.read(18))  # the longest header of a frame
    packed.seek(0)
    _check_size(path, announced, max_unpacked)
    free = shutil.disk_usage(Path(out.name).parent).free
    if announced > free:
        raise DataError(_no_room(path, out, f"{announced:,} bytes are needed and {free:,} free"))
    size = 0
    with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
        while piece := reader.read(_PIECE):
            size += len(piece)
            _check_size(path, size, max_unpacked)
            try:
                out.write(piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise DataError(_no_room(path, out, "the disk is full")) from error
    if size < announced:  # the decompressor takes an end within a frame for the end
        raise DataError(
            f"{path}: {CELLS} is cut short: found {size:,} bytes, expected {announced:,}. Copy or "
            "download the archive again."
        )


def _check_size(path: str, size: int, max_unpacked: int) -> None:
    if size > max_unpacked:
        raise DataError(
            f"{path}: {CELLS} unpacks to {size:,} bytes or more, and may to {max_unpacked:,}. "
            "Nothing of it was kept. Make it smaller: float32, fewer cells; or, if you trust it, "
            "raise the limit (max_unpacked)."
        )


def _no_room(path: str, out: IO[bytes], found: str) -> str:
    folder = Path(out.name).parent.parent
    return (
        f"{path}: cannot be unpacked in {folder}: {found}. Free some space, or name another folder "
        "in the environment variable TMPDIR."
    )


# --- what is inside -----------------------------------------------------------------------------


def _check_contained(path: str, cells: Path, max_unpacked: int) -> None:
    """Refuse an HDF5 file that refers to other files, or whose arrays are larger than the limit."""
    try:
        with h5py.File(cells, "r") as file:
            size = sum(
                (data.size or 0) * data.dtype.itemsize for data in _datasets(path, file, set())
            )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: what {CELLS} holds is no whole HDF5 file ({error}). Expected an .h5ad. The "
            "archive was cut short, or made of another file: make it again."
        ) from error
    _check_size(path, size, max_unpacked)


def _datasets(path: str, group: h5py.Group, seen: set[int]) -> Iterator[h5py.Dataset]:
    for name in group:
        link = group.get(name, getlink=True)
        place = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(link, h5py.HardLink):
            raise DataError(_refers(path, place))
        found = group[name]
        address = h5py.h5o.get_info(found.id).addr
        if address in seen:  # hard links can go in circles
            continue
        seen.add(address)
        if isinstance(found, h5py.Group):
            yield from _datasets(path, found, seen)
        elif isinstance(found, h5py.Dataset):
            if found.external or found.is_virtual:
                raise DataError(_refers(path, place))
            yield found


def _refers(path: str, place: str) -> str:
    return (
        f"{path}: {place!r} in the .h5ad refers to something elsewhere. Expected all data in the "
        f"file itself. {_AGAIN}"
    )
