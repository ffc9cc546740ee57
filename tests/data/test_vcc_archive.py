"""Archives: packed and unpacked, and nothing done that a hostile one asks for."""

from __future__ import annotations

import io
import tarfile
import tempfile

import h5py
import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.data.vcc_archive import CELLS, WATERMARK_FILE, pack, unpacked
from harness.errors import DataError

WATERMARK = ("watermark.txt", b"vcc-prep")


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory, monkeypatch):
    """Unpack into a folder of the test's own, which must be empty afterwards."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def cells(tmp_path):
    path = tmp_path / "cells.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = np.random.default_rng(0).random(50_000, dtype="f4")
    return path


def packed(cells):
    return CELLS, zstandard.compress(cells.read_bytes())


def archive(path, *members):
    """Write a tar of (name, content) or of a `TarInfo`, whatever they are."""
    with tarfile.open(path, "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def refused(path, **options):
    with pytest.raises(DataError) as caught, unpacked(path, **options):
        pytest.fail("the archive was accepted")
    assert str(caught.value).startswith(path)
    return str(caught.value)


def test_what_is_packed_is_unpacked(cells, tmp_path):
    seen = []
    pack(cells, tmp_path / "a.vcc", threads=2, progress=lambda *done: seen.append(done))
    with unpacked(str(tmp_path / "a.vcc")) as file:
        assert file.read_bytes() == cells.read_bytes()
    assert seen[-1] == (cells.stat().st_size, cells.stat().st_size)


def test_tar_reads_what_is_packed(cells, tmp_path):
    pack(cells, tmp_path / "a.vcc")
    with tarfile.open(tmp_path / "a.vcc") as tar:
        assert tar.getnames() == [CELLS, WATERMARK_FILE]
        assert tar.extractfile(WATERMARK_FILE).read() == b"vcc-prep"
        content = tar.extractfile(CELLS).read()
    assert zstandard.frame_content_size(content) == cells.stat().st_size
    assert (tmp_path / "a.vcc").stat().st_size % tarfile.RECORDSIZE == 0


def test_the_number_of_threads_does_not_change_the_archive(cells, tmp_path):
    for threads in (1, 3):
        pack(cells, tmp_path / f"{threads}.vcc", threads=threads)
    assert (tmp_path / "1.vcc").read_bytes() == (tmp_path / "3.vcc").read_bytes()


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_other_tools_are_read(cells, tmp_path, style):
    content = cells.read_bytes()
    half = len(content) // 2
    frames = zstandard.compress(content[:half]) + zstandard.compress(content[half:])
    members = {f"./{WATERMARK_FILE}": b"vcc-prep\n", f"./{CELLS}": frames}
    with tarfile.open(tmp_path / "a.vcc", "w", format=style) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5 if style == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(data))
    with unpacked(str(tmp_path / "a.vcc")) as file:
        assert file.read_bytes() == content


def test_sizes_that_a_frame_does_not_announce_are_found_out(cells, tmp_path):
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    path = archive(tmp_path / "a.vcc", (CELLS, compressor.compress(cells.read_bytes())), WATERMARK)
    with unpacked(path) as file:
        assert file.read_bytes() == cells.read_bytes()
    assert "and may to 1,000" in refused(path, max_unpacked=1000)


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("member", "said"),
    [
        pytest.param(("/etc/passwd", b"x"), "outside its folder", id="absolute"),
        pytest.param(("../pred.h5ad.zst", b"x"), "outside its folder", id="parent"),
        pytest.param(("a/../../b", b"x"), "outside its folder", id="parent_within"),
        pytest.param(("..\\evil", b"x"), "outside its folder", id="backslashes"),
        pytest.param(("notes.txt", b"x"), "'notes.txt' is unexpected", id="unexpected"),
        pytest.param(("sub/pred.h5ad.zst", b"x"), "unexpected", id="in_a_folder"),
        pytest.param(special("sub", tarfile.DIRTYPE), "unexpected", id="folder"),
        pytest.param(
            special(CELLS, tarfile.SYMTYPE, "/etc/passwd"), "link, folder or device", id="symlink"
        ),
        pytest.param(
            special(CELLS, tarfile.LNKTYPE, "/etc/passwd"), "link, folder or device", id="hard_link"
        ),
        pytest.param(special(CELLS, tarfile.CHRTYPE), "link, folder or device", id="device"),
        pytest.param(special(CELLS, tarfile.FIFOTYPE), "link, folder or device", id="pipe"),
        pytest.param(special(CELLS, tarfile.GNUTYPE_SPARSE), "plain file", id="sparse"),
        pytest.param(WATERMARK, "there twice", id="twice"),
    ],
)
def test_members_that_do_not_belong_are_refused(cells, tmp_path, member, said):
    members = [WATERMARK, member]
    if "expected" not in said and "plain" not in said and "device" not in said:
        members.append(packed(cells))
    assert said in refused(archive(tmp_path / "a.vcc", *members))


@pytest.mark.parametrize(
    ("watermark", "said"),
    [
        pytest.param(None, "lacks 'watermark.txt'", id="missing"),
        pytest.param(b"", "holds b''", id="empty"),
        pytest.param(b"vcc-other", "expected b'vcc-prep'", id="another"),
        pytest.param(b"vcc-prep" + bytes(10_000), "expected b'vcc-prep'", id="long"),
    ],
)
def test_the_watermark_must_be_there(cells, tmp_path, watermark, said):
    members = [] if watermark is None else [(WATERMARK_FILE, watermark)]
    assert said in refused(archive(tmp_path / "a.vcc", packed(cells), *members))


def test_an_archive_cut_anywhere_is_refused(cells, tmp_path):
    pack(cells, tmp_path / "a.vcc")
    whole = (tmp_path / "a.vcc").read_bytes()
    path = tmp_path / "cut.vcc"
    for length in (0, 1, 300, 512, 700, len(whole) // 2, len(whole) - 10240, 1024):
        path.write_bytes(whole[:length])
        refused(str(path))


def test_a_file_that_is_no_tar_is_refused(tmp_path):
    path = tmp_path / "a.vcc"
    path.write_bytes(b"PK\3\4" + bytes(range(256)) * 40)
    assert "not a whole tar archive" in refused(str(path))


def test_no_file_is_refused(tmp_path):
    assert "no such file" in refused(str(tmp_path / "a.vcc"))


def test_a_header_that_claims_to_be_huge_is_not_read(cells, tmp_path):
    info = special("x", tarfile.XHDTYPE)
    info.size = 1 << 33
    (tmp_path / "a.vcc").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(20_000))
    assert "a header of" in refused(str(tmp_path / "a.vcc"))


def test_corrupt_compression_is_refused(cells, tmp_path):
    content = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(cells.read_bytes()))
    for at, said in ((0, "cannot be decompressed"), (len(content) // 2, "cannot be decompressed")):
        spoiled = bytearray(content)
        spoiled[at] ^= 0xFF
        assert said in refused(archive(tmp_path / "a.vcc", (CELLS, bytes(spoiled)), WATERMARK))


def test_compression_that_was_cut_is_refused(cells, tmp_path):
    content = zstandard.compress(cells.read_bytes())
    path = archive(tmp_path / "a.vcc", (CELLS, content[:-100]), WATERMARK)
    assert "is cut short" in refused(path)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(cells.read_bytes())
    path = archive(tmp_path / "a.vcc", (CELLS, unsized[:-100]), WATERMARK)
    assert "no whole HDF5 file" in refused(path)
    path = archive(tmp_path / "a.vcc", (CELLS, b""), WATERMARK)
    assert "cannot be decompressed" in refused(path)


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    bomb = zstandard.compress(bytes(50_000_000))  # a few kilobytes
    assert len(bomb) < 10_000
    path = archive(tmp_path / "a.vcc", (CELLS, bomb), WATERMARK)
    monkeypatch.delattr(zstandard, "ZstdDecompressor")  # what is announced is enough to refuse
    assert "unpacks to 50,000,000 bytes or more, and may to 1,000,000" in refused(
        path, max_unpacked=1_000_000
    )


def test_a_full_disk_is_said_before_it_is_full(cells, tmp_path, monkeypatch):
    path = archive(tmp_path / "a.vcc", packed(cells), WATERMARK)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    assert "TMPDIR" in refused(path)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda f: f.update_link("X"), id="external_link"),
        pytest.param(lambda f: f.virtual("X"), id="virtual_dataset"),
        pytest.param(lambda f: f.outside("X"), id="external_storage"),
        pytest.param(lambda f: f.soft("X"), id="soft_link"),
    ],
)
def test_a_file_that_refers_to_others_is_refused(cells, tmp_path, make):
    with Referring(tmp_path / "evil.h5ad", "w") as file:
        make(file)
    path = archive(tmp_path / "a.vcc", packed(tmp_path / "evil.h5ad"), WATERMARK)
    assert "'/X' in the .h5ad refers to something elsewhere" in refused(path)


class Referring(h5py.File):
    """An HDF5 file that can refer to others in each way there is."""

    def update_link(self, name):
        self[name] = h5py.ExternalLink("/etc/passwd", "/X")

    def soft(self, name):
        self[name] = h5py.SoftLink("/elsewhere")

    def virtual(self, name):
        layout = h5py.VirtualLayout((5,), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "X", (5,))
        self.create_virtual_dataset(name, layout)

    def outside(self, name):
        self.create_dataset(name, (5,), "f4", external=[("/etc/passwd", 0, 20)])


def test_an_array_that_is_larger_than_its_file_is_counted_in_full(tmp_path):
    with h5py.File(tmp_path / "evil.h5ad", "w") as file:
        file.create_dataset("X", (1 << 40,), "f4", chunks=(1 << 20,))
        file["X_again"] = file["X"]
        file["round"] = file["/"]
    path = archive(tmp_path / "a.vcc", packed(tmp_path / "evil.h5ad"), WATERMARK)
    assert "unpacks to 4,398,046,511,104 bytes or more" in refused(path)


def test_errors_name_the_archive_and_not_the_scratch_file(cells, tmp_path):
    path = archive(tmp_path / "a.vcc", packed(cells), WATERMARK)
    with pytest.raises(DataError, match=r"a\.vcc \(pred\.h5ad\): is wrong"), unpacked(path) as file:
        raise DataError(f"{file}: is wrong")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing(cells, tmp_path, at, flip):
    if not (tmp_path / "a.vcc").exists():
        pack(cells, tmp_path / "a.vcc")
    spoiled = bytearray((tmp_path / "a.vcc").read_bytes())
    spoiled[int(at * len(spoiled))] ^= flip
    (tmp_path / "b.vcc").write_bytes(spoiled)
    try:
        with unpacked(str(tmp_path / "b.vcc")) as file:
            assert file.read_bytes() == cells.read_bytes()
    except DataError:
        return  # any other error fails the test
