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
_THREADS = tuple(f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"))
_OF_AN_INTERPRETER = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
_WITHOUT_A_SERVER = ("apptainer", "singularity")


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
        gpus = bool(self.variables.get("CUDA_VISIBLE_DEVICES"))
        if Path(engine).name in _WITHOUT_A_SERVER:
            start = [engine, "exec", *(["--nv"] if gpus else []), f"--bind={folder}:{folder}"]
            start += [f"--bind={file}:{file}:ro" for file in files]
            return [*start, f"--pwd={folder}", image, *words], []
        name, user = f"harness-{uuid.uuid4().hex[:12]}", f"{os.getuid()}:{os.getgid()}"
        start = [engine, "run", "--rm", "--init", f"--name={name}", f"--user={user}"]
        start += [*(["--gpus=all"] if gpus else []), f"--volume={folder}:{folder}"]
        start += [f"--volume={file}:{file}:ro" for file in files]
        given = {"HOME": folder} | {k: v for k, v in self.variables.items() if k in self.told}
        start += [f"--env={key}={value}" for key, value in given.items()]
        # Ending the client leaves the container running.
        return [*start, f"--workdir={folder}", image, *words], [engine, "rm", "--force", name]


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
        elif (file := _image_file(command)) is not None and not file.exists():
            yield f"environment.image: there is no {file}."
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
        engine, image = _engine(), str(_image_file(command) or environment.image)
        assert engine is not None, "what has no engine is refused above"
        told = (*_THREADS, "CUDA_VISIBLE_DEVICES", *environment.variables)
        return Place("python", _variables(environment, threads), (engine, image), told)
    python = _interpreter(command)
    assert python is not None, "what has no interpreter is refused above"
    if environment.requirements:
        python = str(_built(command, python, say) / "bin" / "python")
    return Place(python, _variables(environment, threads, python))


def _variables(environment: Environment, threads: int, python: str | None = None) -> dict[str, str]:
    """Return the variables of a program, with its interpreter's folder first on its PATH."""
    found = dict(os.environ) if python == sys.executable else _without_interpreter()
    if python is not None:
        found["PATH"] = os.pathsep.join([str(Path(python).parent), found.get("PATH", os.defpath)])
    found |= dict.fromkeys(_THREADS, str(threads))
    # A progress bar's every step would be a line of the log, and what is not flushed comes late.
    found |= {"TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"}
    return found | environment.variables


def _without_interpreter() -> dict[str, str]:
    """Return this process' variables without those that lead another interpreter to its paths."""
    return {key: value for key, value in os.environ.items() if key not in _OF_AN_INTERPRETER}


def local_requirements(command: Command) -> dict[str, Path]:
    """Find the path of each requirement that is a file or folder of this machine.

    Those begin with ``/``, ``./``, ``../`` or ``~``; a relative one starts from the declaration.
    """
    lines = command.spec.environment.requirements or ()
    return {
        line: _beside(command, _path_and_rest(line)[0])
        for line in map(str.strip, lines)
        if re.match(r"(\.{1,2}|~[^/]*)?/", line)
    }


def _path_and_rest(line: str) -> tuple[str, str]:
    """Part a local requirement into its path and its extras, markers or comment."""
    path = re.split(r"\[|\s*;|\s+#", line, maxsplit=1)[0].strip()
    return path, line.removeprefix(path)


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
    if Path(engine).name in _WITHOUT_A_SERVER:
        return True
    try:
        asked = subprocess.run(  # noqa: S603 - one of `ENGINES`, as the PATH has it
            [engine, "version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _image_file(command: Command) -> Path | None:
    """Return the file of an image; None for one that the engine fetches."""
    image = command.spec.environment.image or ""
    is_file = image.endswith((".sif", ".img")) and "://" not in image
    return _beside(command, image) if is_file else None


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
            _build(command, python, folder, lock, say)
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


def _build(command: Command, python: str, folder: Path, lock: int, say: Say) -> None:
    """Make a virtual environment, install the requirements, and write the manifest last."""
    environment, step = command.spec.environment, partial(_run_step, command, lock)
    lines, local = environment.requirements or [], local_requirements(command)
    say(f"building {folder}: {', '.join(lines)}")
    placed = list(lines)
    for i, line in enumerate(map(str.strip, lines)):
        if line in local:  # a relative path would be looked for from where the installer runs
            placed[i] = os.path.normpath(local[line]) + _path_and_rest(line)[1]
    listed = {"requirements": placed, "constraints": environment.constraints}
    own, uv = str(folder / "bin" / "python"), _uv() if environment.installer == "uv" else None
    if uv:
        make = [uv, "venv", "--quiet", "--python", python]
        install = [uv, "pip", "install", "--python", own]
        freeze = [uv, "pip", "freeze", "--quiet", "--python", own]
        if local:  # of a folder, uv would take the wheel that it once built of this version
            install.append("--no-cache" if os.environ.get("UV_OFFLINE") else "--refresh")
    else:
        make = [python, "-m", "venv"]
        install = [own, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        freeze = [own, "-m", "pip", "freeze", "--disable-pip-version-check"]
    install += ["-r", str(folder / "requirements.txt")]
    if environment.constraints:
        install += ["-c", str(folder / "constraints.txt")]
    versions: list[str] = []
    try:
        step([*make, str(folder)], say)
        for name, content in listed.items():
            (folder / f"{name}.txt").write_text("\n".join(content) + "\n", encoding="utf-8")
        step(install, say)
        step(freeze, versions.append)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    manifest = {**listed, "python": python, "versions": versions}
    paths.write_atomic(str(folder / _MANIFEST), json.dumps(manifest, indent=2) + "\n")


def _run_step(command: Command, lock: int, words: Sequence[str], say: Say) -> None:
    """Run one step of a build; it holds the lock until the last of its processes has ended."""
    try:
        run_program(
            words,
            folder=str(paths.cache_folder().absolute()),
            environment=_without_interpreter(),
            say=say,
            seconds=command.spec.seconds.install,
            held=(lock,),
        )
    except ProgramError as error:
        text = "\n".join(error.tail)
        offline = (
            " No package index answered, or it has no such version: build it where there is a "
            f"network, in the same cache ({paths.cache_folder()}), or correct the requirements."
        )
        raise ModelError(
            f"{command.name}: its environment could not be built: `{' '.join(words)}` "
            f"{error.what}{offline * any(sign in text for sign in _OFFLINE)} Its last lines:\n"
            f"{text}"
        ) from error
