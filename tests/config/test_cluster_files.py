"""The files of cluster/: they can be read, have what they need, and the Slurm scripts run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.cli import run_command as run
from harness.config import check_cluster, read_cluster
from harness.config.yaml import read_yaml
from harness.errors import ClusterError
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
    "path", sorted(CLUSTER.rglob("*.yaml")), ids=lambda path: path.relative_to(CLUSTER).as_posix()
)
def test_every_shipped_file_passes_its_check(path: Path) -> None:
    assert check_cluster(path) == []


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_a_launcher_file_names_nodes_that_it_describes(name: str) -> None:
    launcher = read_yaml(CLUSTER / "ray" / f"{name}.yaml")
    nodes = launcher["available_node_types"]
    assert launcher["provider"]["type"] == name
    assert launcher["head_node_type"] in nodes
    assert all(node["node_config"] for node in nodes.values())
    assert any("--autoscaling-config" in line for line in launcher["head_start_ray_commands"])
    assert launcher["worker_start_ray_commands"]


def test_the_rayjob_submits_a_run_to_the_cluster_that_it_describes() -> None:
    job = read_yaml(RAYJOB)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert "--on kuberay/inside" in spec["entrypoint"]
    assert spec["shutdownAfterJobFinishes"]
    cluster = spec["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert container["volumeMounts"]


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
    ("old", "new", "message"),
    [
        pytest.param("retries:", "retry:", "Did you mean 'retries'?", id="key"),
        pytest.param("kind: ray", "kind: rya", "found 'rya'", id="kind"),
    ],
)
def test_a_mistake_is_found_and_said(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = INSIDE.read_text(encoding="utf-8")
    assert old in text
    wrong = tmp_path / "inside.yaml"
    wrong.write_text(text.replace(old, new))
    assert message in "\n".join(map(str, check_cluster(wrong)))


def test_check_reads_every_yaml_file_in_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(CLUSTER)]) == 0
    n_files = len(list(CLUSTER.rglob("*.yaml")))
    assert f"{n_files} read, nothing wrong" in capsys.readouterr().err


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
