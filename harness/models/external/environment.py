"""Where a program of someone else's runs: an interpreter, an environment built for it, or an image.

An environment of requirements is built once, in the harness' cache under a name that its content
gives it, and shared by every trial, run and process that can see the cache. A lock is held while it
is built, and a manifest written last: a build that was killed is begun anew by whoever is next,
once nothing of it lives any more. A virtual environment cannot be moved, so it is built where it
stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError
from harness.models.external.process import ProgramError, run_program
from harness.storage import exclusive_lock, paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from harness.models.external.spec import Command, Environment

    Say = Callable[[str], None]

ENGINES = ("apptainer", "singularity", "docker", "podman")
"""What can run an image, in the order in which they are tried."""

_MANIFEST = "environment.json"
_OFFLINE = (
    "No matching distribution",
    "No solution found",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "error sending request",
    "dns error",
)
_MADE = r"build|dist|__pycache__|.*\.egg-info|\..*"
_THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program runs, ready for it.

    Attributes
    ----------
    python
        The interpreter that ``{python}`` stands for.
    variables
        All environment variables of the program.
    engine
        What runs the image, and the image; nothing where there is none.
    told
        The variables that a container is given: those of this machine mean little in it.
    """

    python: str
    variables: Mapping[str, str]
    engine: tuple[str, str] | None = None
    told: tuple[str, ...] = ()

    def argv(
        self, words: Sequence[str], folder: str, files: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """Return what to start, and what to run once it has ended.

        Parameters
        ----------
        words
            The program and its arguments.
        folder, files
            What it reads and writes, which a container has to be shown.
        """
        if self.engine is None:
            found = shutil.which(words[0], path=self.variables.get("PATH")) or words[0]
            return [found, *words[1:]], []
        engine, image = self.engine
        if Path(engine).name in ("apptainer", "singularity"):
            return self._apptainer(engine, image, folder, files) + list(words), []
        name = f"harness-{uuid.uuid4().hex[:12]}"
        started = self._docker(engine, image, name, folder, files) + list(words)
        # Ending the client leaves the container running.
        return started, [engine, "rm", "--force", name]

    @property
    def _gpus(self) -> bool:
        return bool(self.variables.get("CUDA_VISIBLE_DEVICES"))

    def _apptainer(self, engine: str, image: str, folder: str, files: Sequence[str]) -> list[str]:
        shown = [f"--bind={folder}:{folder}", *(f"--bind={file}:{file}:ro" for file in files)]
        return [engine, "exec", *(["--nv"] if self._gpus else []), *shown, f"--pwd={folder}", image]

    def _docker(
        self, engine: str, image: str, name: str, folder: str, files: Sequence[str]
    ) -> list[str]:
        shown = [f"--volume={folder}:{folder}", *(f"--volume={f}:{f}:ro" for f in files)]
        given = {"HOME": folder} | {k: v for k, v in self.variables.items() if k in self.told}
        told = [f"--env={key}={value}" for key, value in given.items()]
        user = f"--user={os.getuid()}:{os.getgid()}"
        gpus = ["--gpus=all"] if self._gpus else []
        start = [engine, "run", "--rm", "--init", f"--name={name}", user]
        return [*start, *gpus, *shown, *told, f"--workdir={folder}", image]


def environment_problems(command: Command) -> Iterator[str]:
    """Yield what this machine lacks for a command's environment; nothing is built or started."""
    environment = command.spec.environment
    if environment.image is not None:
        if _engine() is None:
            there = ", ".join(_engines())
            found = f"{there} does not answer `version`" if there else "none is on the PATH"
            yield (
                f"environment.image: {environment.image!r} needs one of {', '.join(ENGINES)}, and "
                f"{found} of this machine. Install or start one, or declare requirements."
            )
        elif _is_file(environment.image) and not _beside(command, environment.image).exists():
            yield f"environment.image: there is no {_beside(command, environment.image)}."
        return
    if _interpreter(command) is None:
        yield (
            f"environment.python: there is no interpreter {environment.python!r} on this machine. "
            "Expected one's path, its name on the PATH, or a virtual environment's folder."
        )
    if environment.requirements and environment.installer == "uv" and _uv() is None:
        yield (
            "environment.installer: uv is neither on the PATH nor beside the harness' own "
            "interpreter. Install it: pip install uv"
        )
    for line, path in local_requirements(command).items():
        if not path.exists():
            yield f"environment.requirements: {line!r}: there is no {path}."


def place_of(command: Command, threads: int, say: Say) -> Place:
    """Return where a command's program runs, built first where it is not there yet.

    Raises
    ------
    ModelError
        This machine lacks something, or the requirements could not be installed.
    """
    for problem in environment_problems(command):
        raise ModelError(f"{command.name}: {problem}")
    environment = command.spec.environment
    if environment.image is not None:
        image, engine = environment.image, _engine()
        assert engine is not None, "what has no engine is refused above"
        image = str(_beside(command, image)) if _is_file(image) else image
        told = (*(f"{name}_NUM_THREADS" for name in _THREADS), "CUDA_VISIBLE_DEVICES")
        told += tuple(environment.variables)
        return Place("python", _variables(environment, threads), (engine, image), told)
    python = _interpreter(command)
    assert python is not None, "what has no interpreter is refused above"
    if environment.requirements:
        python = str(_built(command, python, say) / "bin" / "python")
    return Place(python, _variables(environment, threads, python))


def _variables(environment: Environment, threads: int, python: str | None = None) -> dict[str, str]:
    own = python is None or python != sys.executable
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"} if own else set()
    found = {key: value for key, value in os.environ.items() if key not in hidden}
    if python is not None:
        found["PATH"] = os.pathsep.join([str(Path(python).parent), found.get("PATH", os.defpath)])
    found |= {f"{name}_NUM_THREADS": str(threads) for name in _THREADS}
    # A progress bar's every step would be a line of the log, and what is not flushed comes late.
    found |= {"TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"}
    return found | environment.variables


def local_requirements(command: Command) -> dict[str, Path]:
    """Return the requirements that are files or folders of this machine, with their places.

    Those begin with ``/``, ``./``, ``../`` or ``~``; a relative one starts from the declaration.
    """
    lines = command.spec.environment.requirements or ()
    return {
        line: _beside(command, re.split(r"\[|\s*;|\s+#", line, maxsplit=1)[0].strip())
        for line in map(str.strip, lines)
        if re.match(r"(\.{1,2}|~[^/]*)?/", line)
    }


def _uv() -> str | None:
    """Return uv, which is beside the interpreter where it was installed with the harness."""
    own = Path(sys.executable).parent / "uv"
    return shutil.which("uv") or (str(own) if own.is_file() else None)


def _engine() -> str | None:
    """Return the first engine that is there and can start a container."""
    return next((found for found in _engines() if _answers(found)), None)


def _engines() -> list[str]:
    return [found for name in ENGINES if (found := shutil.which(name))]


@cache
def _answers(engine: str) -> bool:
    """Whether an engine can start containers: a client of Docker whose server is off cannot."""
    if Path(engine).name in ("apptainer", "singularity"):
        return True
    try:
        asked = subprocess.run(  # noqa: S603 - one of `ENGINES`, as the PATH has it
            [engine, "version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _is_file(image: str) -> bool:
    return image.endswith((".sif", ".img")) and "://" not in image


def _beside(command: Command, path: str) -> Path:
    return Path(command.folder, Path(path).expanduser())


def _interpreter(command: Command) -> str | None:
    """Return the interpreter that is declared, the harness' own without one; None if not there."""
    wanted = command.spec.environment.python
    if wanted is None:
        return sys.executable
    path = _beside(command, wanted)
    if path.is_dir():
        path = path / "bin" / "python"
    if path.is_file():
        return str(path)
    return None if os.sep in wanted else shutil.which(wanted)


# --- building -----------------------------------------------------------------------------------


def _built(command: Command, python: str, say: Say) -> Path:
    """Return the folder of the command's environment, built under a lock if nobody has yet."""
    folder = paths.cache_folder().absolute() / "environments" / _key(command, python)
    if (folder / _MANIFEST).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    waiting = partial(say, "another process is building the environment: waiting for it")
    with exclusive_lock(folder.with_suffix(".lock"), waiting) as lock:
        if not (folder / _MANIFEST).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _build(command, python, folder, _Steps(command, say, lock))
    return folder


def _key(command: Command, python: str) -> str:
    environment = command.spec.environment
    content: dict[str, Any] = {
        "requirements": environment.requirements,
        "constraints": environment.constraints,
        "installer": environment.installer,
        "python": [os.path.realpath(python), _version(python)],
        "machine": platform.machine(),
    }
    if local := local_requirements(command):
        content["local"] = {line: content_of(path) for line, path in local.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def content_of(path: Path) -> str:
    """Return what tells a wheel, or a folder with a package, from an earlier version of it.

    What building a package leaves in its folder is no part of it.
    """
    found = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        inner = file.relative_to(path)
        if not any(re.fullmatch(_MADE, folder) for folder in inner.parts[:-1]):
            found.update(f"{inner}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return found.hexdigest()[:32]


def _version(python: str) -> str:
    if python == sys.executable:
        return sys.version
    words = [python, "-c", "import sys; print(sys.version)"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout  # noqa: S603 - the declared interpreter
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelError(f"{python} is no Python interpreter that works: {error}.") from error


@dataclass(frozen=True, slots=True)
class _Steps:
    """Runs the steps of a build; each holds the lock until the last of its processes has ended."""

    command: Command
    say: Say
    lock: int

    def run(self, words: Sequence[str], say: Say | None = None) -> None:
        """Run one step; `ModelError` with what it said last where it fails."""
        hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
        variables = {key: value for key, value in os.environ.items() if key not in hidden}
        try:
            run_program(
                words,
                folder=str(paths.cache_folder().absolute()),
                environment=variables,
                say=say or self.say,
                seconds=self.command.spec.seconds.install,
                held=(self.lock,),
            )
        except ProgramError as error:
            raise ModelError(self._failed(words, error)) from error

    def _failed(self, words: Sequence[str], error: ProgramError) -> str:
        text = "\n".join(error.tail)
        offline = (
            " No package index answered, or it has no such version: build it where there is a "
            f"network, in the same cache ({paths.cache_folder()}), or correct the requirements."
        )
        return (
            f"{self.command.name}: its environment could not be built: `{' '.join(words)}` "
            f"{error.what}{offline * any(sign in text for sign in _OFFLINE)} Its last lines:\n"
            f"{text}"
        )


def _build(command: Command, python: str, folder: Path, steps: _Steps) -> None:
    environment = command.spec.environment
    steps.say(f"building {folder}: {', '.join(environment.requirements or ())}")
    local = local_requirements(command)
    listed = {
        "requirements": [_placed(line, local) for line in environment.requirements or ()],
        "constraints": environment.constraints,
    }
    own, uv = str(folder / "bin" / "python"), _uv() if environment.installer == "uv" else None
    try:
        steps.run([*_maker(uv, python), str(folder)])
        for name, lines in listed.items():
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        given = ["-r", str(folder / "requirements.txt")]
        if environment.constraints:
            given += ["-c", str(folder / "constraints.txt")]
        if uv and local:  # of a folder, uv would take the wheel that it once built of this version
            given.append("--no-cache" if os.environ.get("UV_OFFLINE") else "--refresh")
        steps.run([*_installer(uv, own), *given])
        versions: list[str] = []
        steps.run(_freezer(uv, own), versions.append)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    manifest = {**listed, "python": python, "versions": versions}
    paths.write_atomic(str(folder / _MANIFEST), json.dumps(manifest, indent=2) + "\n")


def _placed(line: str, local: Mapping[str, Path]) -> str:
    """Return a requirement, a relative path as an absolute one."""
    path = local.get(line.strip())
    if path is None:
        return line
    written = re.split(r"\[|\s*;|\s+#", line.strip(), maxsplit=1)[0].strip()
    return f"{os.path.normpath(path)}{line.strip().removeprefix(written)}"


def _maker(uv: str | None, python: str) -> list[str]:
    return [uv, "venv", "--quiet", "--python", python] if uv else [python, "-m", "venv"]


def _installer(uv: str | None, python: str) -> list[str]:
    pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    return [uv, "pip", "install", "--python", python] if uv else pip


def _freezer(uv: str | None, python: str) -> list[str]:
    pip = [python, "-m", "pip", "freeze", "--disable-pip-version-check"]
    return [uv, "pip", "freeze", "--quiet", "--python", python] if uv else pip
