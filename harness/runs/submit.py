"""A run whose driver lives on the cluster: the job goes there, and its output comes back.

The command that is handed in is the one that a person on the head node would type. Job and cluster
file travel in it, so nothing has to be copied first; the run folder must be a place that the nodes
see, since it is all that comes of a run.
"""

from __future__ import annotations

import base64
import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import yaml

from harness.config import find_declaration
from harness.errors import ClusterError
from harness.executors import JobServer
from harness.jobs import read_job
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.config import ClusterSpec


def submit_run(name: str, run: str | None, cluster: ClusterSpec) -> tuple[JobServer, str]:
    """Hand a run in, and return the server and the id of its job there.

    Parameters
    ----------
    name
        A job's name, or the path of its file here. Only the file itself is checked: the datasets
        that it names need not be here.
    run
        The run folder, as a URL or an absolute path on the cluster.
    cluster
        One with the address of a dashboard.

    Raises
    ------
    ClusterError
        The nodes could not find the run folder, or no job server answers.
    """
    path = find_declaration("jobs", name)
    read_job(str(path))
    if run is None or not (paths.is_remote(run) or PurePosixPath(run).is_absolute()):
        found = f"found {run!r}" if run else "found none"
        raise ClusterError(
            "-o: a run that is submitted needs a run folder that the nodes of the cluster see: "
            f"{found}, expected a URL or an absolute path there, such as s3://bucket/runs/"
            f"{path.stem}."
        )
    # Both files travel in the command, which unpacks them on the head and runs the job there.
    inside = cluster.model_dump(exclude_defaults=True, exclude={"env"}) | {"address": "auto"}
    files = {path.name: path.read_bytes(), "inside.yaml": yaml.safe_dump(inside).encode()}
    unpacked = " && ".join(
        f'echo {base64.b64encode(content).decode()} | base64 -d > "$folder"/{shlex.quote(file)}'
        for file, content in files.items()
    )
    command = (
        f"folder=$(mktemp -d) && {unpacked} && exec python -m harness run "
        f'"$folder"/{shlex.quote(path.name)} -o {shlex.quote(run)} --on "$folder"/inside.yaml'
    )
    server = JobServer(str(cluster.address))
    return server, server.submit(command, name=f"harness run {path.stem}", env=cluster.env)


def follow_run(server: JobServer, job: str, write: Callable[[str], object]) -> None:
    """Pass on what a run prints until it is over; `ClusterError` where it did not end well."""
    status, why = server.follow(job, write)
    if status != "SUCCEEDED":
        raise ClusterError(
            f"Ray job {job} at {server.address} ended as {status}: {why.strip() or 'no reason'}. "
            "What it printed is above. Submitted again, the same run goes on where it was."
        )
