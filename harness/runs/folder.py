"""A run folder: where each file of a run lies, and what has become of each trial.

::

    run.json, job.yaml     the job as expanded, commit, versions, machine, start; as written
    driver.json            who drives the run now, and when that was last seen alive
    cancel.json            asks the driver to stop
    reference/             what scoring and fitting need of the screen, computed once
    trials/ID/             spec.json, log.txt, attempt.json, profiles.zarr, predictions.zarr if
                           kept, failure.json or manifest.json (written last)
    results/ID.parquet     the trial's scores, long
    tables/                what the run was for

A trial is finished if and only if its manifest exists. Whatever else lies in its folder without
one is left over from an attempt that did not end, and the next attempt overwrites it. Everything
is files, so that another machine, or another cluster a week later, knows what this one did.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import DataError, RunBusyError, StorageError
from harness.executors import STAGES
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

State = Literal["done", "failed", "running", "lost", "missing"]

ALIVE_SECONDS = 60.0
"""A driver or worker that has not been seen for so long is taken for dead."""

RENEW_SECONDS = 5.0
"""How often a driver says that it lives, and looks whether it is to stop."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Every path of a run, local or on an object store."""

    path: str

    @property
    def description(self) -> str:
        """The run's own file: job, versions, machine."""
        return paths.join(self.path, "run.json")

    @property
    def job_file(self) -> str:
        """The job as it was written, so that the run can be repeated from its folder."""
        return paths.join(self.path, "job.yaml")

    @property
    def reference(self) -> str:
        """The folder of what is computed once and shared by trials."""
        return paths.join(self.path, "reference")

    @property
    def tables(self) -> str:
        """The folder of comparative tables."""
        return paths.join(self.path, "tables")

    def of_trial(self, trial: str, name: str = "") -> str:
        """Return a file in a trial's folder, or the folder."""
        folder = paths.join(self.path, "trials", trial)
        return paths.join(folder, name) if name else folder

    def results(self, trial: str) -> str:
        """Return the file of a trial's scores."""
        return paths.join(self.path, "results", f"{trial}.parquet")

    def log(self, trial: str) -> str:
        """Return the file with what a trial printed and logged."""
        return self.of_trial(trial, "log.txt")

    def describe(self, description: Mapping[str, Any]) -> None:
        """Write the run's own file."""
        paths.write_atomic(self.description, _json(description))

    def described(self) -> dict[str, Any]:
        """Return the run's own file; `DataError` where the folder is no run."""
        content = _read(self.description)
        if content is None:
            raise DataError(
                f"{self.path}: this is no run folder: it has no run.json. Expected one that "
                "`harness run` wrote, such as runs/quickstart."
            )
        return content

    # --- trials ---------------------------------------------------------------------------------

    def begun(self) -> list[str]:
        """Return the trials that have left any file, by one listing."""
        return paths.list_names(paths.join(self.path, "trials"))

    def manifests(self, trials: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the manifests of those trials that are finished."""
        return self._each("manifest.json", self._only_begun(trials))

    def stages(self, trials: Iterable[str]) -> dict[str, str]:
        """Find the last stage that trials have behind them which were left between two."""
        begun = self._only_begun(trials)
        done: dict[str, str] = {}
        for stage in STAGES[:-1]:
            done |= dict.fromkeys(self._each(f"stages/{stage}.json", begun), stage)
        return done

    def age(self, trial: str, since: float = 0.0) -> float:
        """Return how many seconds ago the attempt at a trial began; 0 as for `silence`."""
        attempt = self._attempt_since(trial, since)
        return 0.0 if attempt is None else max(0.0, time.time() - float(attempt["began"]))

    def _only_begun(self, trials: Iterable[str]) -> list[str]:
        """Leave out trials that never began: nothing is asked of them."""
        begun = set(self.begun())
        return [trial for trial in trials if trial in begun]

    def _each(self, name: str, trials: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Read a file of each of several trials, where it is there."""
        files = [self.of_trial(trial, name) for trial in trials]
        found = zip(trials, files, paths.read_each(files), strict=True)
        return {trial: _parsed(file, text) for trial, file, text in found if text is not None}

    def manifest(self, trial: str) -> dict[str, Any] | None:
        """Return what a finished trial said of itself; None for any other."""
        return _read(self.of_trial(trial, "manifest.json"))

    def failure(self, trial: str) -> dict[str, Any] | None:
        """Return how the last attempt at a trial failed; None where none did."""
        return _read(self.of_trial(trial, "failure.json"))

    def attempt(self, trial: str) -> dict[str, Any] | None:
        """Return what the last attempt at a trial said last: stage, host, when; None before any."""
        return _read(self.of_trial(trial, "attempt.json"))

    def write_manifest(self, trial: str, manifest: Mapping[str, Any]) -> None:
        """Declare a trial finished; the last thing that an attempt does."""
        paths.remove(self.of_trial(trial, "failure.json"))
        paths.write_atomic(self.of_trial(trial, "manifest.json"), _json(manifest))

    def write_failure(self, trial: str, failure: Mapping[str, Any]) -> None:
        """Record how an attempt failed."""
        paths.write_atomic(self.of_trial(trial, "failure.json"), _json(failure))

    def write_attempt(self, trial: str, attempt: Mapping[str, Any]) -> None:
        """Give a sign of life, which nobody misses after a power cut."""
        said = _json({**attempt, "seen": time.time()})
        paths.write_atomic(self.of_trial(trial, "attempt.json"), said, durable=False)

    def forget(self, trial: str) -> None:
        """Make a trial one that nothing was ever done for, its log aside.

        One that was not finished still goes on from its checkpoint.
        """
        finished = paths.exists(self.of_trial(trial, "manifest.json"))
        made = ("predictions.zarr", "profiles.zarr", "checkpoint") * finished
        for name in (*made, "manifest.json", "failure.json", "attempt.json", "stages"):
            paths.remove(self.of_trial(trial, name))

    def silence(self, trial: str, since: float = 0.0) -> float:
        """Return how many seconds ago a running trial last gave a sign of life.

        While it waits for a program of someone else's, that has to do something. 0 where it has
        given none after `since`, a time in seconds since the epoch: it may be waiting for a worker.
        Also where the run folder cannot be reached: that says nothing of it.
        """
        attempt = self._attempt_since(trial, since)
        if attempt is None:
            return 0.0
        return max(0.0, time.time() - float(attempt["seen"])) + float(attempt.get("idle", 0.0))

    def _attempt_since(self, trial: str, since: float) -> dict[str, Any] | None:
        try:
            attempt = self.attempt(trial)
        except StorageError:
            return None
        return None if attempt is None or attempt["seen"] < since else attempt

    def standings(self, trials: Sequence[str]) -> dict[str, tuple[State, dict[str, Any]]]:
        """Return what has become of trials, each with the file that says so.

        That is its manifest, failure or last sign of life. ``lost`` is one that began, did not
        end, and was interrupted or has not been seen for a minute.
        """
        rest = self._only_begun(trials)
        found: dict[str, tuple[State, dict[str, Any]]] = {}
        found |= {t: ("done", said) for t, said in self._each("manifest.json", rest).items()}
        rest = [trial for trial in rest if trial not in found]
        failures = self._each("failure.json", rest)
        found |= {trial: ("failed", said) for trial, said in failures.items()}
        attempts = self._each("attempt.json", [trial for trial in rest if trial not in failures])
        for trial, said in attempts.items():
            alive = not said.get("ended") and time.time() - said["seen"] < ALIVE_SECONDS
            found[trial] = ("running" if alive else "lost", said)
        return {trial: found.get(trial, ("missing", {})) for trial in trials}

    # --- drivers --------------------------------------------------------------------------------

    def driver(self) -> dict[str, Any] | None:
        """Return who drives the run, if anyone seems to: host, pid, since when, last seen."""
        driver = _read(self.driver_file)
        return driver if driver is not None and _seems_alive(driver) else None

    def lock(self) -> RunLock:
        """Lock the run for this driver; `RunBusyError` if another driver holds it.

        A driver that was killed leaves its file behind. On the same machine its process number
        tells; from another, it is taken for dead once it has not been seen for a minute.
        """
        other = self.driver()
        if other is not None:
            raise _busy(self.path, other)
        lock = RunLock(self, uuid.uuid4().hex)
        lock.renew()
        # Two that locked it at once: the later write stands, and the other one sees it here.
        now = _read(self.driver_file)
        if now is None or now["token"] != lock.token:
            raise _busy(self.path, now or {})
        return lock

    def ask_to_cancel(self) -> None:
        """Ask the driver to stop: it ends what is running and starts nothing more."""
        paths.write_atomic(self._cancel, _json({"asked": time.time(), "host": platform.node()}))

    def is_cancelled(self) -> bool:
        """Whether the driver has been asked to stop."""
        return paths.exists(self._cancel)

    def withdraw_cancel(self) -> None:
        """Take back what `ask_to_cancel` asked."""
        paths.remove(self._cancel)

    @property
    def driver_file(self) -> str:
        """The file that a driver keeps renewing."""
        return paths.join(self.path, "driver.json")

    @property
    def _cancel(self) -> str:
        return paths.join(self.path, "cancel.json")


class RunLock:
    """Lock of a run folder, held by its driver inside the block.

    A thread renews it, and watches for `harness cancel`: the main thread is then interrupted as by
    Ctrl-C.
    """

    def __init__(self, run: RunFolder, token: str) -> None:
        self.run, self.token = run, token
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._handlers: dict[int, Any] = {}

    def renew(self) -> None:
        """Write the driver's heartbeat."""
        said = {
            "token": self.token,
            "host": platform.node(),
            "pid": os.getpid(),
            "seen": time.time(),
        }
        paths.write_atomic(self.run.driver_file, _json(said), durable=False)

    def _hold(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            with suppress(OSError):  # a lost connection may come back before the minute is over
                self.renew()
                if self.run.is_cancelled():
                    os.kill(os.getpid(), signal.SIGINT)
                    return

    def __enter__(self) -> Self:
        self.run.withdraw_cancel()
        self._thread.start()
        # A driver in the background of a script ignores SIGINT, and a scheduler ends one by
        # SIGTERM: both have to reach the end of this block, or the run stays claimed.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, signal.default_int_handler)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._stop.set()
        self._thread.join()
        paths.remove(self.run.driver_file)
        self.run.withdraw_cancel()


def _seems_alive(driver: Mapping[str, Any]) -> bool:
    if driver["host"] != platform.node():
        return time.time() - float(driver["seen"]) < ALIVE_SECONDS
    try:
        os.kill(int(driver["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's: it lives
    return True


def _busy(path: str, driver: Mapping[str, Any]) -> RunBusyError:
    ago = time.time() - float(driver.get("seen", time.time()))
    return RunBusyError(
        f"{path}: another driver is running this (process {driver.get('pid')} on "
        f"{driver.get('host')}, last seen {ago:.0f} s ago). Watch it with `harness status {path}`, "
        f"end it with `harness cancel {path}`, or give this run another folder with -o."
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _read(path: str) -> dict[str, Any] | None:
    try:
        return _parsed(path, paths.read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parsed(path: str, text: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise DataError(
            f"{path}: this is no JSON ({error}). The harness writes it whole or not at all, so "
            "something else changed it. Remove it, and run the job again with this run folder."
        ) from error
    return content
