"""The files of cluster/: each passes its check, mistakes are found, and the Slurm scripts run."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.cli import run
from harness.cluster_checks import check_cluster_file, cluster_files
from harness.errors import ClusterError
from harness.jobs.specs import read_cluster
from tests.slurm_stubs import Slurm, options

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
CPU_GPU, WHOLE = CLUSTER / "slurm" / "cpu-gpu.sbatch", CLUSTER / "slurm" / "whole-nodes.sbatch"
RAYJOB, AWS = CLUSTER / "kuberay" / "rayjob.yaml", CLUSTER / "ray" / "aws.yaml"
INSIDE = CLUSTER / "slurm" / "inside.yaml"


# --- what is shipped ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", cluster_files(CLUSTER), ids=lambda path: path.relative_to(CLUSTER).as_posix()
)
def test_every_shipped_file_passes_its_check(path: Path) -> None:
    assert check_cluster_file(path) == []


@pytest.mark.parametrize("folder", ["slurm", "kuberay", "ray"])
def test_every_folder_says_how_in_a_few_lines(folder: str) -> None:
    lines = (CLUSTER / folder / "README.md").read_text().splitlines()
    assert len(lines) < 60
    assert "```" in lines[:4]


@pytest.mark.parametrize("name", ["slurm/inside", "kuberay/inside", "ray/inside"])
def test_a_driver_inside_a_cluster_joins_it(name: str) -> None:
    assert read_cluster(name).address == "auto"


def test_the_image_is_built_from_files_that_are_there() -> None:
    allowed = (CLUSTER / "kuberay" / "Dockerfile.dockerignore").read_text().splitlines()
    names = [line.removeprefix("!") for line in allowed if line.startswith("!")]
    assert names
    assert all((ROOT / name).exists() for name in names)


def test_a_run_on_a_file_of_another_tool_says_what_it_is_for() -> None:
    with pytest.raises(ClusterError, match=r"aws\.yaml: is for `kubectl` or `ray up`"):
        read_cluster(str(AWS))


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "old", "new", "message"),
    [
        pytest.param(INSIDE, "retries:", "retry:", "Did you mean 'retries'?", id="key"),
        pytest.param(INSIDE, "kind: ray", "kind: rya", "found 'rya'", id="kind"),
        pytest.param(CPU_GPU, "done\n", "\n", "bash cannot read it: syntax error", id="syntax"),
        pytest.param(CPU_GPU, "#!/usr", "# !/usr", "line 1: sbatch wants", id="interpreter"),
        pytest.param(CPU_GPU, "#SBATCH --time=1-00:00:00\n", "", "has no --time", id="time"),
        pytest.param(CPU_GPU, "B:USR1@300", "USR1@300", "Write --signal=B:USR1@300", id="signal"),
        pytest.param(
            CPU_GPU, "#SBATCH --cpus-per-task=8\n", "", "component 1 of the job", id="component"
        ),
        pytest.param(
            CPU_GPU,
            "set -euo pipefail\n",
            "set -euo pipefail\n#SBATCH --mem=1G\n",
            "Slurm does not read #SBATCH after the first command",
            id="late",
        ),
        pytest.param(CPU_GPU, "--num-cpus", "--cpus", "has no --num-cpus", id="cpus"),
        pytest.param(
            CPU_GPU, '--num-gpus="${SLURM_GPUS_ON_NODE:-0}"', "--num-gpus=4", "fixed", id="gpus"
        ),
        pytest.param(CPU_GPU, '--port="$(port 0 0)"', "", "6379, the default", id="no_port"),
        pytest.param(CPU_GPU, '--port="$(port 0 0)"', "--port=6400", "takes port 6400", id="port"),
        pytest.param(CPU_GPU, "--dashboard-agent-listen-port", "--x", "52365", id="agent_port"),
        pytest.param(CPU_GPU, "--min-worker-port", "--x", "10002 to 19999", id="worker_ports"),
        pytest.param(CPU_GPU, "--temp-dir", "--x", "has no --temp-dir", id="no_temp"),
        pytest.param(
            CPU_GPU,
            "temp=/tmp/hr",
            "temp=/scratch/project_465000123/users/somebody/ray-of-",
            "bytes, and may have 107",
            id="long_temp",
        ),
        pytest.param(CPU_GPU, "RAY_AUTH_MODE", "X", "says nothing of RAY_AUTH_MODE", id="auth"),
        pytest.param(CPU_GPU, "--on slurm/inside", "", "has no --on", id="on"),
        pytest.param(CPU_GPU, "  wait\n}", "  ray stop\n}", "ends every Ray of yours", id="stop"),
        pytest.param(WHOLE, "#SBATCH --exclusive\n", "", "Add #SBATCH --exclusive", id="shared"),
        pytest.param(AWS, "max_workers: 12", "max_worker: 12", "Did you mean", id="launcher_key"),
        pytest.param(AWS, "max_workers: 12", "max_workers: many", "expected integer", id="type"),
        pytest.param(AWS, "  type: aws", "  kind: aws", "'type' is missing", id="provider"),
        pytest.param(
            AWS, "head_node_type: head", "head_node_type: haed", "Did you mean 'head'?", id="head"
        ),
        pytest.param(AWS, "min_workers: 1", "min_workers: 20", "come to 20", id="too_many"),
        pytest.param(AWS, "--autoscaling-config", "--x", "no worker would ever", id="autoscaler"),
        pytest.param(RAYJOB, "entrypoint:", "entry_point:", "spec.entrypoint: is missing", id="no"),
        pytest.param(RAYJOB, 'num-cpus: "0"', "num-cpus: 0", "found 0 (int)", id="unquoted"),
        pytest.param(
            RAYJOB,
            "shutdownAfterJobFinishes: true",
            "shutdownAfterJobFinish: true",
            "Did you mean 'shutdownAfterJobFinishes'?",
            id="misspelt",
        ),
        pytest.param(RAYJOB, "--on kuberay/inside", "", "has no --on", id="job_on"),
        pytest.param(RAYJOB, "-o /shared/runs/quickstart", "", "vanish with the pod", id="run"),
        pytest.param(RAYJOB, "replicas: 1\n", "replicas: 9\n", "expected from minReplicas", id="n"),
        pytest.param(RAYJOB, 'limits: {cpu: "2", ', "limits: {", "has no cpu", id="limits"),
        pytest.param(
            RAYJOB, "volumeMounts: *mounts", "volumeMounts: []", "['/shared']", id="mounts"
        ),
        pytest.param(RAYJOB, "ray.io/v1", "ray.io/v1alpha1", "expected 'ray.io/v1'", id="version"),
    ],
)
def test_a_mistake_is_found_and_said(
    tmp_path: Path, source: Path, old: str, new: str, message: str
) -> None:
    text = source.read_text(encoding="utf-8")
    assert old in text
    wrong = tmp_path / source.name
    wrong.write_text(text.replace(old, new))
    assert message in "\n".join(map(str, check_cluster_file(wrong)))


def test_an_address_where_nobody_listens_is_found_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "far.yaml"
    file.write_text("kind: ray\naddress: 127.0.0.1:1\n")
    assert check_cluster_file(file) == []
    assert run(["cluster", "check", str(file)]) == 1
    assert "address: no Ray cluster answers at '127.0.0.1:1'" in capsys.readouterr().err


def test_an_address_where_somebody_listens_is_right(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        file = tmp_path / "near.yaml"
        file.write_text(f"kind: ray\naddress: http://127.0.0.1:{server.getsockname()[1]}\n")
        assert check_cluster_file(file, knock=True) == []


def test_check_reads_every_kind_of_file_in_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(CLUSTER)]) == 0
    assert f"{len(cluster_files(CLUSTER))} read, nothing wrong" in capsys.readouterr().err


# --- the Slurm scripts, with stubs for Slurm and Ray --------------------------------------------


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    """Stubs; nothing that they start survives the test."""
    before = set(psutil.Process().children(recursive=True))
    yield Slurm(tmp_path)
    for child in set(psutil.Process().children(recursive=True)) - before:
        child.kill()


@pytest.fixture
def job_id() -> str:
    """A number that no other test's ports collide with."""
    return str(os.getpid())


ONE = {"SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "4", "SLURM_MEM_PER_NODE": "16384"}
HET = {
    "SLURM_HET_SIZE": "2",
    "SLURM_JOB_NUM_NODES_HET_GROUP_0": "3",
    "SLURM_CPUS_PER_TASK_HET_GROUP_0": "16",
    "SLURM_MEM_PER_NODE_HET_GROUP_0": "65536",
    "SLURM_JOB_NUM_NODES_HET_GROUP_1": "1",
    "SLURM_CPUS_PER_TASK_HET_GROUP_1": "8",
    "SLURM_MEM_PER_CPU_HET_GROUP_1": "4096",
    "SLURM_GPUS_PER_NODE_HET_GROUP_1": "a100:2",
}


def test_each_node_of_a_heterogeneous_job_gets_its_own_numbers(slurm: Slurm, job_id: str) -> None:
    status, said = slurm.run(CPU_GPU, "jobs/mine.yaml", SLURM_JOB_ID=job_id, **HET)
    assert status == 0, said
    started = [options(record["words"]) for record in slurm.of("ray")]
    assert sorted((node["--num-cpus"], node["--num-gpus"]) for node in started) == [
        *[("16", "0")] * 3,
        ("8", "2"),
    ]
    gpu = next(node for node in started if node["--num-gpus"] == "2")
    assert int(gpu["--memory"]) == (8 * 4096 - 2048) << 20
    assert {node["--temp-dir"] for node in started} == {f"/tmp/hr{job_id}"}
    placed = [options(record["words"]) for record in slurm.of("srun")]
    placed.sort(key=lambda step: (step["--het-group"], step["--nodes"]))  # begun side by side
    assert [(step["--het-group"], step["--nodes"]) for step in placed] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "1"),
    ]
    assert (placed[0]["--nodelist"], placed[1]["--exclude"]) == ("node1", "node1")
    assert placed[2]["--gpus-per-node"] == "a100:2"


@pytest.mark.parametrize(("missing", "given"), [("0", True), ("1", False)], ids=["there", "not"])
def test_a_port_for_rays_client_is_given_where_the_client_is_installed(
    slurm: Slurm, job_id: str, missing: str, *, given: bool
) -> None:
    status, said = slurm.run(CPU_GPU, "mine", SLURM_JOB_ID=job_id, STUB_NO_CLIENT=missing, **HET)
    assert status == 0, said
    ports = [options(node["words"]).get("--ray-client-server-port") for node in slurm.of("ray")]
    assert [port is not None and 20000 <= int(port) < 32768 for port in ports] == [given] * 4


def test_workers_and_driver_find_the_head_and_share_its_token(slurm: Slurm, job_id: str) -> None:
    slurm.run(CPU_GPU, "mine", "runs/other", SLURM_JOB_ID=job_id, **HET)
    nodes, (driver,) = slurm.of("ray"), slurm.of("harness")
    head = next(options(node["words"]) for node in nodes if "--head" in node["words"])
    address = f"{head['--node-ip-address']}:{head['--port']}"
    joined = [options(node["words"]).get("--address") for node in nodes]
    assert sorted(filter(None, joined)) == [address] * 3
    assert driver["words"] == ["run", "mine", "-o", "runs/other", "--on", "slurm/inside"]
    assert driver["env"]["RAY_ADDRESS"] == address
    tokens = {record["env"]["RAY_AUTH_TOKEN"] for record in [*nodes, driver]}
    assert len(tokens) == 1
    assert len(tokens.pop()) == 48
    assert {node["env"]["RAY_USAGE_STATS_ENABLED"] for node in nodes} == {"0"}


def test_a_job_of_one_node_ends_its_ray_and_has_its_drivers_status(
    slurm: Slurm, job_id: str
) -> None:
    status, said = slurm.run(CPU_GPU, "mine", SLURM_JOB_ID=job_id, STUB_STATUS="7", **ONE)
    assert status == 7, said
    assert len(slurm.of("ray")) == len(slurm.of("ray ended")) == 1
    assert "--het-group" not in options(slurm.of("srun")[0]["words"])
    assert slurm.of("harness")[0]["words"][3] == "runs/mine"


def test_a_preempted_job_interrupts_its_driver_and_ends_its_nodes(
    slurm: Slurm, job_id: str
) -> None:
    status, said = slurm.interrupt(CPU_GPU, signal.SIGTERM, SLURM_JOB_ID=job_id, **HET)
    assert status == 130, said
    assert slurm.of("harness interrupted")
    assert len(slurm.of("ray ended")) == len(slurm.of("ray")) == 4
    assert not slurm.of("scontrol"), "Slurm requeues what it preempts"


@pytest.mark.parametrize("script", [CPU_GPU, WHOLE], ids=["shared", "whole"])
def test_a_job_near_its_time_limit_is_requeued(slurm: Slurm, job_id: str, script: Path) -> None:
    limit = {"SLURM_JOB_ID": job_id, "SLURM_CPUS_ON_NODE": "4", **ONE}
    status, said = slurm.interrupt(script, signal.SIGUSR1, **limit)
    assert status == 130, said
    assert slurm.of("harness interrupted")
    assert [record["words"] for record in slurm.of("scontrol")] == [["requeue", job_id]]


def test_a_job_that_was_requeued_too_often_stays_away(slurm: Slurm, job_id: str) -> None:
    often = {"SLURM_JOB_ID": job_id, "SLURM_RESTART_COUNT": "20", **ONE}
    slurm.interrupt(CPU_GPU, signal.SIGUSR1, **often)
    assert not slurm.of("scontrol")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(CPU_GPU, "Ray's head did not start", id="shared"),
        pytest.param(WHOLE, "Ray did not start", id="whole"),
    ],
)
def test_a_ray_that_does_not_start_fails_the_job(
    slurm: Slurm, job_id: str, script: Path, words: str
) -> None:
    broken = {"SLURM_JOB_ID": job_id, "SLURM_CPUS_ON_NODE": "4", "STUB_RAY": "broken", **ONE}
    status, said = slurm.run(script, "mine", **broken)
    assert status == 1
    assert words in said
    assert not slurm.of("harness")


def test_whole_nodes_run_one_command_everywhere_and_keep_the_drivers_status(
    slurm: Slurm, job_id: str
) -> None:
    whole = {"SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_ON_NODE": "32", "STUB_STATUS": "5"}
    status, said = slurm.run(WHOLE, "mine", SLURM_JOB_ID=job_id, **whole)
    assert status == 5, said
    (started,) = slurm.of("ray")
    given = options(started["words"])
    assert started["words"][:2] == ["symmetric-run", "--address"]
    assert (given["--num-cpus"], given["--num-gpus"]) == ("32", "0")
    assert not Path(f"/tmp/hr{job_id}").exists()


def test_jobs_with_neighbouring_numbers_share_no_port() -> None:
    function = re.search(r"^port\(\).*?^}", CPU_GPU.read_text(), re.DOTALL | re.MULTILINE)
    assert function
    each = "for SLURM_JOB_ID in {4999901..5000100}; do for i in 0 1 2 3; do port 0 $i; done; done"
    said = subprocess.run(
        ["bash", "-c", f"{function[0]}\n{each}"], capture_output=True, text=True, check=True
    )
    ports = [int(line) for line in said.stdout.split()]
    assert len(set(ports)) == len(ports) == 200 * 4
    assert min(ports) > 19999, "Ray's workers take up to 19999 elsewhere"
    assert max(ports) < 32768, "the system hands out those from 32768"


# --- the Slurm script, with a real Ray ----------------------------------------------------------


@pytest.fixture
def real(slurm: Slurm) -> Slurm:
    """Slurm's stubs without those for Ray and the harness."""
    for name in ("ray", "harness", "python"):
        (slurm.bin / name).unlink()
    return slurm


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_script_runs_a_job_on_a_real_ray(real: Slurm, job_id: str) -> None:
    (real.folder / "mine.yaml").write_text(
        "dataset: sim:tiny\nsplit: unseen-perturbation\nfolds: [0]\n"
        "models: [{model: control-mean}]\n"
    )
    path = f"{real.bin}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = real.start(
        CPU_GPU,
        "mine.yaml",
        SLURM_JOB_ID=job_id,
        PATH=path,
        HEAD_IP="",
        HARNESS_CACHE=str(real.folder / "cache"),
        **ONE | {"SLURM_CPUS_PER_TASK": "1"},
    )
    said, _ = process.communicate(timeout=170)
    assert process.returncode == 0, said
    assert "Ray has 1 of 1 nodes" in said
    assert list(real.folder.glob("runs/mine/trials/*/manifest.json"))
    assert not Path(f"/tmp/hr{job_id}").exists()
