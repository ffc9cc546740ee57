"""A run whose driver lives on the cluster: what is handed in, what comes back, what is said."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.analysis.results import Results
from harness.cli import run_command as command
from harness.config.cluster import ClusterSpec
from harness.errors import ClusterError
from harness.executors import open_executor, ray_jobs
from harness.executors.ray_jobs import JobServer
from harness.runs.submit import follow_run, submit_run

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = """
dataset: sim:tiny?contexts=1&genes=60
split: unseen-perturbation
folds: [0]
models: [{model: control-mean}]
"""


class Server(ThreadingHTTPServer):
    """As much of a cluster's job server as is spoken to: it runs what is handed in, in a shell."""

    def __init__(self, shims: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.shims = shims
        self.handed_in: list[dict[str, Any]] = []
        self.asked_as: list[str | None] = []
        self.ended: subprocess.CompletedProcess[str] | None = None
        self.silent = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def begin(self, said: dict[str, Any]) -> None:
        self.handed_in.append(said)
        environment = os.environ | said["runtime_env"].get("env_vars", {})
        environment["PATH"] = f"{self.shims}:{environment['PATH']}"
        self.ended = subprocess.run(
            said["entrypoint"],
            shell=True,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.asked_as.append(self.headers["Authorization"])
        self.server.begin(json.loads(self.rfile.read(length)))
        self.answer({"submission_id": "raysubmit_1"})

    def do_GET(self) -> None:
        done = self.server.ended
        assert done is not None
        if self.server.silent:
            self.server.silent -= 1
            self.send_error(503, "restarting")
        elif self.path == "/api/jobs/raysubmit_1/logs":
            self.answer({"logs": done.stdout})
        elif self.path == "/api/jobs/raysubmit_1":
            failed = {"status": "FAILED", "message": f"exit code {done.returncode}"}
            self.answer(failed if done.returncode else {"status": "SUCCEEDED", "message": None})
        else:
            self.send_error(404, "no such page")

    def answer(self, said: dict[str, Any]) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    shims = tmp_path / "bin"
    shims.mkdir()
    python = shims / "python"
    python.write_text('#!/bin/sh\necho "runs: $*"\ncat "$4" "$8"\necho "$HARNESS_DATA"\n')
    python.chmod(0o755)
    with Server(shims) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "it's small.yaml"
    path.write_text(JOB, encoding="utf-8")
    return path


def cluster_file(folder: Path, address: str, *lines: str) -> Path:
    path = folder / "far.yaml"
    path.write_text("\n".join(["kind: ray", f"address: {address}", *lines]), encoding="utf-8")
    return path


def test_the_command_there_has_job_and_cluster_in_it(
    server: Server, job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("retries: 7", "autoscaling: true", "env: {HARNESS_DATA: /there}")
    cluster = cluster_file(tmp_path, server.address, *lines)
    run = "s3://bucket/runs/a b"
    assert command(["run", str(job), "-o", run, "--on", str(cluster)]) == 0
    assert server.ended is not None
    said = server.ended.stdout
    assert "runs: -m harness run" in said
    assert f"it's small.yaml -o {run} --on" in said
    assert JOB.strip() in said
    assert all(line in said for line in ("address: auto", "kind: ray", "retries: 7", "/there"))
    assert server.handed_in[0]["metadata"] == {"job_name": "harness run it's small"}
    shown = capsys.readouterr().err
    assert said in shown
    assert f"`harness status {run}`" in shown


def test_a_driver_that_fails_there_fails_here(
    server: Server, job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (server.shims / "python").write_text("#!/bin/sh\necho no such dataset\nexit 2\n")
    cluster = cluster_file(tmp_path, server.address)
    assert command(["run", str(job), "-o", "/shared/run", "--on", str(cluster)]) != 0
    said = capsys.readouterr().err
    assert "no such dataset" in said
    assert "ended as FAILED: exit code 2" in said


def test_a_job_server_that_is_silent_for_a_while_is_waited_for(
    server: Server, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ClusterSpec(kind="ray", address=server.address)
    there, name = submit_run(str(job), "/shared/run", spec)
    server.silent = 3
    printed: list[str] = []
    assert there.follow(name, printed.append, seconds=0.01)[0] == "SUCCEEDED"
    assert "".join(printed).count("runs:") == 1
    server.silent = 10**6
    monkeypatch.setattr(ray_jobs, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(ClusterError, match="status 503"):
        there.follow(name, printed.append, seconds=0.01)


def test_a_token_is_shown_to_the_job_server(
    server: Server, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    follow_run(
        *submit_run(str(job), "/run", ClusterSpec(kind="ray", address=server.address)),
        lambda text: None,
    )
    assert server.asked_as == ["Bearer secret"]
    assert "secret" not in json.dumps(server.handed_in)


@pytest.mark.parametrize(("run", "found"), [(None, "found none"), ("runs/x", "found 'runs/x'")])
def test_a_run_folder_that_no_node_sees_is_refused(job: Path, run: str | None, found: str) -> None:
    spec = ClusterSpec(kind="ray", address="http://127.0.0.1:1")
    with pytest.raises(ClusterError, match=f"{found}, expected a URL or an absolute path"):
        submit_run(str(job), run, spec)


def test_nobody_at_the_address_is_said_with_what_to_do(server: Server, job: Path) -> None:
    nobody = ClusterSpec(kind="ray", address="http://127.0.0.1:1")
    with pytest.raises(ClusterError, match=r"No job server answers at 'http://127.0.0.1:1'"):
        submit_run(str(job), "/run", nobody)
    server.ended = subprocess.CompletedProcess((), 0, "", "")
    with pytest.raises(ClusterError, match=r"refused GET /api/jobs/other: found status 404"):
        JobServer(server.address).status("other")


def test_a_dashboard_is_no_place_for_a_driver_here() -> None:
    with pytest.raises(ClusterError, match="is a dashboard, where runs are submitted"):
        open_executor(ClusterSpec(kind="ray", address="http://head:8265"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("opencensus") is None, reason="ray[default] is not installed: no real job server"
)
def test_a_run_is_submitted_to_a_real_cluster(job: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("", 0)) as other:
        port, gcs = free.getsockname()[1], other.getsockname()[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {
        "PATH": path,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "HARNESS_CACHE": str(tmp_path / "cache"),
    }
    start = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        f"--port={gcs}",
        f"--dashboard-port={port}",
    ]
    start += ["--num-cpus=2", "--object-store-memory=80000000", "--include-dashboard=true"]
    with (tmp_path / "ray.log").open("w") as log:
        head = subprocess.Popen(
            start, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        spec = ClusterSpec(kind="ray", address=f"http://127.0.0.1:{port}", env={"OF_RUN": "1"})
        run, printed = str(tmp_path / "run"), list[str]()
        for _ in range(60):
            with suppress(ClusterError):
                submitted = submit_run(str(job), run, spec)
                break
            time.sleep(2)
        follow_run(*submitted, printed.append)
        assert Results(run).trials["state"].tolist() == ["done"]
        assert "control-mean" in "".join(printed)
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait()
