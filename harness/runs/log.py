"""What a running trial leaves around it: its log, and the folder for what is deleted afterwards."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def scratch_folder(beside: str) -> Iterator[str]:
    """Give a folder for what is deleted after scoring.

    It lies in the trial's own folder, not under the machine's temporary one, so that what a killed
    worker leaves behind is found and removed by the next attempt. A run on an object store has no
    such place.
    """
    if paths.is_remote(beside):
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            yield folder
        return
    paths.remove(beside)
    Path(beside).mkdir(parents=True)
    try:
        yield beside
    finally:
        paths.remove(beside)


@contextmanager
def recorded(path: str, *, goes_on: bool = False) -> Iterator[Callable[[], None]]:
    """Send what is printed and logged in the block to the trial's log, which ends up at `path`.

    The file is written as things happen where the run is local, so that a hanging trial can be
    watched. On an object store it is put there at the end, and by each call of what is yielded.
    With `goes_on`, what earlier stages wrote stays above.
    """
    remote = paths.is_remote(path)
    with tempfile.TemporaryDirectory(prefix="harness-") if remote else nullcontext() as folder:
        local = Path(path) if folder is None else Path(folder, "log.txt")
        if goes_on and remote:
            with suppress(FileNotFoundError):
                local.write_bytes(paths.read_bytes(path))
        handler = logging.FileHandler(local, mode="a" if goes_on else "w", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.INFO)  # not the attribute: loggers remember what they may say
        root.addHandler(handler)

        def show() -> None:
            handler.flush()
            if remote:
                paths.write_atomic(path, local.read_bytes())

        try:
            with redirect_stdout(handler.stream), redirect_stderr(handler.stream):
                yield show
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
            try:
                show()
            finally:
                handler.close()
