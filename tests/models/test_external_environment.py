"""Environments of programs: built once, by whoever comes first; containers and their arguments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import ModelError
from harness.models.external.environment import (
    _key,
    _uv,
    content_of,
    environment_problems,
    local_requirements,
    place_of,
)
from harness.models.external.process import ProgramError, run_program
from tests.command_files import command

if TYPE_CHECKING:
    from harness.models.external.spec import Command


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and no package index."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of one line."""
    path = tmp_path_factory.mktemp("wheels") / "tinyprogram-1.0-py3-none-any.whl"
    info = "tinyprogram-1.0.dist-info"
    files = {
        "tinyprogram.py": "def main():\n    print('tiny')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tinyprogram\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntiny = tinyprogram:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return path


def of_wheel(folder: Path, wheel: Path, installer: str = "pip") -> Command:
    return command(folder, environment={"requirements": [str(wheel)], "installer": installer})


def run(command: Command, words: list[str]) -> list[str]:
    said: list[str] = []
    place = place_of(command, 1, lambda line: None)
    argv, cleanup = place.argv(words, str(Path.cwd()), [])
    run_program(
        argv, folder=str(Path.cwd()), environment=place.variables, say=said.append, cleanup=cleanup
    )
    return said


BUILD = """
import sys
from harness.models.external.spec import Command
from harness.models.external.environment import place_of
command = Command.from_json(sys.stdin.read())
print(place_of(command, 1, lambda line: print("said", line)).python)
"""


INSTALLERS = [
    pytest.param("pip", marks=pytest.mark.slow),
    pytest.param(
        "uv",
        marks=pytest.mark.skipif(
            _uv() is None, reason="uv is not installed: no environment is built with it"
        ),
    ),
]


def builder(made: Command) -> subprocess.Popen[str]:
    """Start a process that builds the environment of a program."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(made.to_json())
    process.stdin.close()
    process.stdin = None
    return process


def folders() -> list[Path]:
    return [path for path in Path("cache/environments").iterdir() if path.is_dir()]


@pytest.mark.parametrize("installer", INSTALLERS)
def test_two_processes_build_one_environment(tmp_path: Path, wheel: Path, installer: str) -> None:
    made = of_wheel(tmp_path, wheel, installer)
    left = Path("cache/environments", _key(made, sys.executable), "half")
    left.parent.mkdir(parents=True)
    left.touch()  # as a build that was killed leaves it
    both = [builder(made) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("said building" in text for text in said) == 1
    assert len({text.strip().rpartition("\n")[2] for text in said}) == 1
    assert run(made, ["tiny"]) == ["tiny"]
    (folder,) = folders()
    manifest = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    (version,) = manifest["versions"]
    assert version.startswith("tinyprogram")
    assert not (folder / "half").exists()


@pytest.mark.parametrize("installer", INSTALLERS)
def test_what_cannot_be_installed_says_so_and_leaves_nothing(
    tmp_path: Path, installer: str
) -> None:
    given = {"requirements": ["no-such-program==9"], "installer": installer}
    wanted = command(tmp_path, environment=given)
    with pytest.raises(ModelError, match="build it where there is a network") as caught:
        place_of(wanted, 1, lambda line: None)
    assert "mine: its environment could not be built" in str(caught.value)
    own = (
        "No matching distribution found" if installer == "pip" else "no-such-program was not found"
    )
    assert own in str(caught.value)
    assert folders() == []


@pytest.mark.parametrize("installer", INSTALLERS[1:])
def test_what_changes_in_a_requirement_is_built_anew(
    tmp_path: Path, wheel: Path, installer: str
) -> None:
    own = tmp_path / "jobs" / "commands" / wheel.name
    own.parent.mkdir(parents=True)
    shutil.copy(wheel, own)
    made = command(
        tmp_path, environment={"requirements": [f"./{wheel.name}"], "installer": installer}
    )
    assert run(made, ["tiny"]) == ["tiny"]
    with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(own, "w") as after:
        for name in before.namelist():
            told = before.read(name)
            after.writestr(name, told.replace(b"tiny", b"other") if name.endswith(".py") else told)
    assert run(made, ["tiny"]) == ["other"]
    assert len(folders()) == 2


def test_a_folder_is_known_by_what_is_not_made_of_it(tmp_path: Path) -> None:
    package = tmp_path / "jobs" / "commands" / "package"
    for name in ("pyproject.toml", "src/mine.py", "build/lib/mine.py", "mine.egg-info/SOURCES.txt"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("first", encoding="utf-8")
    made = command(tmp_path, environment={"requirements": ["./package[all] ; os_name == 'posix'"]})
    ((_, path),) = local_requirements(made).items()
    before = content_of(path)
    (package / "build/lib/mine.py").write_text("second", encoding="utf-8")
    assert content_of(path) == before
    (package / "src/mine.py").write_text("second", encoding="utf-8")
    assert content_of(path) != before


def test_what_names_an_environment_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.models.external.environment._version", lambda python: "3.12.1")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    package = tmp_path / "jobs" / "commands" / "package"
    for name in ("pyproject.toml", "src/mine.py", ".git/config"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(f"of {name}\n", encoding="utf-8")
    given = {"requirements": ["a==1", "./package[all]"], "constraints": ["b<2"]}
    made = command(tmp_path, environment=given)
    assert content_of(package) == "500f62e64b3742d280ea72f403c0298d"
    assert content_of(package / "pyproject.toml") == "013af3b4523afe97f57082f6f05a25ca"
    assert _key(made, "/nowhere/python") == "1d184fb4c1e2f48a"
    made = command(tmp_path, environment={"requirements": ["a==1"], "installer": "uv"})
    assert _key(made, "/nowhere/python") == "f0c674b18590ab2b"


def test_a_folder_that_is_not_there_is_said_before_anything_is_built(tmp_path: Path) -> None:
    made = command(tmp_path, environment={"requirements": ["./gone"]})
    with pytest.raises(ModelError, match=r"requirements: '\./gone': there is no .*gone"):
        place_of(made, 1, lambda line: None)


SLOW_UV = """#!/bin/sh
case "$1 $2" in
  "venv --quiet") mkdir -p "$5/bin"; : > "$5/bin/python" ;;
  "pip install")
    folder=$(dirname "$(dirname "$4")")
    echo $$ >> "$STARTED"
    [ "$(wc -l < "$STARTED")" = 1 ] || { : > "$folder/second"; exit 0; }
    trap '' TERM
    sleep 1.5
    : > "$folder/first" ;;
esac
"""


def test_a_build_waits_until_nothing_lives_of_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text(SLOW_UV, encoding="utf-8")
    (tmp_path / "bin" / "uv").chmod(0o755)
    started = tmp_path / "started"
    monkeypatch.setenv("STARTED", str(started))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    made = command(tmp_path, environment={"requirements": ["anything"], "installer": "uv"})
    killed = builder(made)
    while not started.exists():
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    said: list[str] = []
    place_of(made, 1, said.append)
    assert "another process is building the environment: waiting for it" in said
    (folder,) = folders()
    assert (folder / "second").exists()
    assert not (folder / "first").exists()


def test_an_interpreter_may_be_a_folder_or_a_path(tmp_path: Path) -> None:
    venv = tmp_path / "jobs" / "commands" / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / "bin" / "theirs").write_text("#!/bin/sh\necho theirs\n", encoding="utf-8")
    (venv / "bin" / "theirs").chmod(0o755)
    assert run(command(tmp_path, environment={"python": "venv"}), ["theirs"]) == ["theirs"]
    assert run(command(tmp_path, environment={"python": "venv/bin/python"}), ["theirs"]) == [
        "theirs"
    ]


def test_variables_reach_the_program_and_another_s_paths_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    (tmp_path / "python3").symlink_to(sys.executable)
    names = "MODE", "PYTHONPATH", "OMP_NUM_THREADS"
    code = f"import os; print(*(os.environ.get(name) for name in {names}))"
    given = {"python": str(tmp_path / "python3"), "variables": {"MODE": "fast"}}
    made = command(tmp_path, environment=given)
    assert run(made, [str(tmp_path / "python3"), "-c", code]) == ["fast None 1"]


STUB = """#!/bin/sh
[ "$1" = version ] && exit @STATUS@
echo "$(basename $0) $@" >> "$CALLS"
[ "$1" = rm ] && exit 0
while [ $# -gt 0 ] && [ "$1" != "the-image" ]; do shift; done
shift
exec "$@"
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a stand-in for a container engine that records its arguments and runs the program."""

    def make(name: str, status: int = 0) -> Path:
        calls, folder = tmp_path / "calls", tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        stub = STUB.replace("@STATUS@", str(status))
        (folder / name).write_text(stub, encoding="utf-8")
        (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        monkeypatch.setenv("CALLS", str(calls))
        return calls

    return make


def test_docker_is_told_what_to_show_and_removed_afterwards(tmp_path: Path, engine: Any) -> None:
    calls = engine("docker")
    given = {"image": "the-image", "variables": {"MODE": "fast"}}
    made = command(tmp_path, environment=given)
    assert run(made, ["echo", "inside"]) == ["inside"]
    started, ended = calls.read_text(encoding="utf-8").splitlines()
    folder = Path.cwd()
    assert started.startswith("docker run --rm --init --name=harness-")
    assert f"--volume={folder}:{folder}" in started
    assert "--env=MODE=fast" in started
    assert "--gpus" not in started
    name = started.split("--name=")[1].split()[0]
    assert ended == f"docker rm --force {name}"


def test_a_container_that_takes_too_long_is_removed(tmp_path: Path, engine: Any) -> None:
    calls = engine("docker")
    made = command(tmp_path, environment={"image": "the-image"})
    place = place_of(made, 1, lambda line: None)
    argv, cleanup = place.argv(["sleep", "60"], str(tmp_path), [])
    with pytest.raises(ProgramError, match="ran longer than its limit of 1 s"):
        run_program(
            argv,
            folder=str(tmp_path),
            environment=place.variables,
            say=lambda line: None,
            seconds=1,
            cleanup=cleanup,
        )
    assert "docker rm --force harness-" in calls.read_text(encoding="utf-8")


def test_apptainer_is_preferred_and_binds_the_folder(tmp_path: Path, engine: Any) -> None:
    calls = engine("apptainer")
    made = command(tmp_path, environment={"image": "the-image"})
    assert run(made, ["echo", "inside"]) == ["inside"]
    (started,) = calls.read_text(encoding="utf-8").splitlines()
    folder = Path.cwd()
    assert started.startswith(f"apptainer exec --bind={folder}:{folder} --pwd={folder} the-image")


def test_a_client_whose_server_is_off_is_passed_over(
    tmp_path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine("docker", 1)
    made = command(tmp_path, environment={"image": "the-image"})
    monkeypatch.setattr("harness.models.external.environment.ENGINES", ("docker",))
    (problem,) = environment_problems(made)
    assert "and " + str(tmp_path / "bin" / "docker") + " does not answer `version`" in problem
    calls = engine("podman")
    monkeypatch.setattr("harness.models.external.environment.ENGINES", ("docker", "podman"))
    assert run(made, ["echo", "inside"]) == ["inside"]
    assert calls.read_text(encoding="utf-8").startswith("podman run --rm --init --name=harness-")


def test_an_image_file_that_is_not_there_is_said(tmp_path: Path, engine: Any) -> None:
    engine("apptainer")
    made = command(tmp_path, environment={"image": "gone.sif"})
    with pytest.raises(ModelError, match=r"environment\.image: there is no .*gone\.sif"):
        place_of(made, 1, lambda line: None)
