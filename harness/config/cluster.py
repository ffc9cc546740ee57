"""Cluster files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from harness.config.lookup import find_declaration
from harness.config.types import Natural  # noqa: TC001 - pydantic reads it
from harness.config.validation import Declared, Problem, check_model, check_size
from harness.config.yaml import read_yaml
from harness.errors import ClusterError, DeclarationError
from harness.storage import parse_size

if TYPE_CHECKING:
    from pathlib import Path


class ClusterSpec(Declared):
    """Where trials run: Ray on this machine (``local``), or a Ray cluster that is already up.

    An `address` with ``http`` is that of its dashboard: the run is submitted there as a Ray job.
    `autoscaling` says that the cluster starts nodes as they are needed, so that what no node has
    now may still come; without it, what no living node has any more is waited for no longer than
    `wait_for_node_seconds`.
    """

    kind: Literal["local", "ray"]
    address: str | None = None
    num_cpus: Natural | None = None
    num_gpus: Natural | None = None
    object_store_memory: str | None = None
    max_in_flight: Annotated[int, Field(ge=1)] | None = None
    retries: Natural = 2
    autoscaling: bool = False
    wait_for_node_seconds: Annotated[float, Field(ge=0)] = 300
    env: dict[str, str] = Field(default={})

    _check_memory = field_validator("object_store_memory")(check_size)

    @field_validator("address")
    @classmethod
    def _is_no_client(cls, address: str | None) -> str | None:
        if (address or "").startswith("ray://"):
            raise ValueError(
                f"found {address!r}, which is Ray Client: a run would end with its connection. "
                "Expected 'auto' on a node of the cluster, or the dashboard's address, such as "
                "'http://head:8265', where the run is submitted as a Ray job."
            )
        return address

    @property
    def object_store_bytes(self) -> int | None:
        """The size of Ray's object store; None leaves it to Ray."""
        return None if self.object_store_memory is None else parse_size(self.object_store_memory)

    @property
    def submits(self) -> bool:
        """Whether the driver is to live on the cluster, where a run is submitted."""
        return (self.address or "").startswith(("http://", "https://"))

    @property
    def patience(self) -> float | None:
        """How long to wait for a node that is gone, in seconds; None for ever."""
        return None if self.autoscaling else self.wait_for_node_seconds

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ClusterSpec:
        if self.kind == "ray" and self.address is None:
            raise ValueError("kind 'ray' needs an address, such as 'auto' or 'http://head:8265'.")
        if self.kind == "local" and self.address is not None:
            raise ValueError("kind 'local' starts its own Ray and takes no address. Use kind: ray.")
        sizes = ("num_cpus", "num_gpus", "object_store_memory")
        sized = [name for name in sizes if getattr(self, name) is not None]
        if self.kind == "ray" and sized:
            raise ValueError(f"{sized[0]} is for kind 'local': a running cluster has its own size.")
        if self.kind == "local" and self.autoscaling:
            raise ValueError("autoscaling is for kind 'ray': this machine does not grow.")
        if self.kind == "local" and "wait_for_node_seconds" in self.model_fields_set:
            raise ValueError("wait_for_node_seconds is for kind 'ray': here is one node, no other.")
        return self


OTHER_TOOLS = frozenset({"apiVersion", "cluster_name"})
"""Keys of files in cluster/ that kubectl or `ray up` read."""


def read_cluster(name_or_path: str) -> ClusterSpec:
    """Read a cluster file by name or path; all that is wrong with it is one `ClusterError`."""
    path = find_declaration("cluster", name_or_path)
    data = read_yaml(path)
    if isinstance(data, dict) and data.keys() & OTHER_TOOLS:
        raise ClusterError(
            Problem(
                str(path),
                "",
                "is for `kubectl` or `ray up`, which start a cluster; a run needs a file with "
                "kind: local or kind: ray. Inside a cluster that is slurm/inside, kuberay/inside "
                "or ray/inside.",
            )
        )
    cluster, problems = check_model(ClusterSpec, data, str(path))
    if cluster is None:
        raise ClusterError(*problems)
    return cluster


def check_cluster(path: Path) -> list[Problem]:
    """Check a cluster file, and list its problems; one of another tool need only be YAML."""
    try:
        data = read_yaml(path)
    except DeclarationError as error:
        return list(error.args)
    if isinstance(data, dict) and data.keys() & OTHER_TOOLS:
        return []
    return check_model(ClusterSpec, data, str(path))[1]
