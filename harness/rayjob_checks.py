"""What is wrong with a RayJob for Kubernetes: the fields that a run relies on, and its pitfalls.

The models name the fields of KubeRay's ``ray.io/v1`` that are used here. Other fields pass, since
the operator gains some with every release, unless they look like one of these misspelt: what the
API server does not know it may drop without a word.
"""

# ruff: noqa: N815 — the fields have the names that Kubernetes gives them

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.config.declarations import Problem, check_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]


class Known(BaseModel):
    """Base of objects of which some fields are known; others are kept, and pass."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class Metadata(Known):
    """What the object is called."""

    name: Text | None = None
    generateName: Text | None = None


class Amounts(Known):
    """What a container gets (``limits``) and is placed by (``requests``): CPU, memory, GPUs."""

    limits: dict[str, str | int | float] = Field(default={})
    requests: dict[str, str | int | float] = Field(default={})


class Mount(Known):
    """Where a volume appears in a container."""

    name: Text
    mountPath: Text


class Container(Known):
    """A container of a pod; Ray runs in the first."""

    name: Text
    image: Text
    resources: Amounts = Amounts()
    volumeMounts: list[Mount] = Field(default=[])


class Volume(Known):
    """A volume of a pod."""

    name: Text


class PodSpec(Known):
    """The pods of a group."""

    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume] = Field(default=[])


class Template(Known):
    """A template of pods."""

    spec: PodSpec


class Head(Known):
    """The pod with Ray's head, where the driver runs."""

    rayStartParams: dict[str, str] = Field(default={})
    template: Template


class Workers(Known):
    """A group of like pods that trials run on."""

    groupName: Text
    replicas: Count | None = None
    minReplicas: Count = 0
    maxReplicas: Count = 2**31 - 1
    rayStartParams: dict[str, str] = Field(default={})
    template: Template


class Cluster(Known):
    """The Ray cluster that the job gets."""

    rayVersion: Text | None = None
    enableInTreeAutoscaling: bool = False
    headGroupSpec: Head
    workerGroupSpecs: list[Workers] = Field(default=[])


class Spec(Known):
    """What is run, and what becomes of its cluster."""

    entrypoint: Text
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: Count = 0
    activeDeadlineSeconds: Annotated[int, Field(ge=1)] | None = None
    backoffLimit: Count = 0
    submissionMode: Text = "K8sJobMode"
    rayClusterSpec: Cluster


class RayJob(Known):
    """A job with a Ray cluster of its own."""

    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: Spec


def check_rayjob(path: Path, data: Any) -> list[Problem]:
    """Return all that the API server would refuse or drop, and what would fail later."""
    job, problems = check_model(RayJob, data, str(path))
    if job is None:
        return problems
    return [Problem(str(path), key, message) for key, message in [*_misspelt(job), *_pitfalls(job)]]


def _misspelt(model: BaseModel, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield keys that no field has but one nearly has, here and below."""
    for name in model.model_extra or {}:
        if close := get_close_matches(name, type(model).model_fields, n=1, cutoff=0.8):
            yield f"{place}{name}", f"is not a known key. Did you mean {close[0]!r}?"
    for name in type(model).model_fields:
        value = getattr(model, name)
        for position, inner in enumerate(value if isinstance(value, list) else [value]):
            index = f"[{position}]" if isinstance(value, list) else ""
            if isinstance(inner, BaseModel):
                yield from _misspelt(inner, f"{place}{name}{index}.")


def _pitfalls(job: RayJob) -> Iterator[tuple[str, str]]:
    spec, cluster = job.spec, job.spec.rayClusterSpec
    if not (job.metadata.name or job.metadata.generateName):
        yield "metadata", "has neither name nor generateName. Give it one."
    if not spec.shutdownAfterJobFinishes:
        yield (
            "spec.shutdownAfterJobFinishes",
            "is not true: the cluster would go on, and cost, after the job.",
        )
    yield from _entrypoint(spec.entrypoint)
    if not cluster.workerGroupSpecs:
        yield "spec.rayClusterSpec.workerGroupSpecs", "is empty: trials have no node to run on."
    yield from _groups(cluster)


def _entrypoint(entrypoint: str) -> Iterator[tuple[str, str]]:
    key = "spec.entrypoint"
    if re.search(r"\bharness\s+run\b", entrypoint) and not re.search(r"--on[ =]\S", entrypoint):
        yield (
            key,
            "has no --on: the driver would start a Ray of its own on the head and leave the "
            "cluster idle. Add `--on kuberay/inside`.",
        )
    if re.search(r"\bharness\s+run\b", entrypoint) and not re.search(
        r"(-o|--run)[ =]\S", entrypoint
    ):
        yield key, "has no -o: the run folder would vanish with the pod. Name one on the volume."


def _groups(cluster: Cluster) -> Iterator[tuple[str, str]]:
    place = "spec.rayClusterSpec"
    head = cluster.headGroupSpec.template.spec
    shared = {mount.mountPath for mount in head.containers[0].volumeMounts}
    yield from _pod(head, f"{place}.headGroupSpec")
    for index, group in enumerate(cluster.workerGroupSpecs):
        here = f"{place}.workerGroupSpecs[{index}]"
        pod = group.template.spec
        yield from _pod(pod, here)
        mounted = {mount.mountPath for mount in pod.containers[0].volumeMounts}
        if shared - mounted:
            yield (
                f"{here}.template.spec.containers[0].volumeMounts",
                f"lacks {sorted(shared - mounted)}, which the head has. Workers read data and "
                "write results themselves: mount the same volume at the same path.",
            )
        if group.replicas is not None and not (
            group.minReplicas <= group.replicas <= group.maxReplicas
        ):
            yield (
                f"{here}.replicas",
                f"found {group.replicas}, expected from minReplicas, {group.minReplicas}, to "
                f"maxReplicas, {group.maxReplicas}.",
            )


def _pod(pod: PodSpec, group: str) -> Iterator[tuple[str, str]]:
    place, container = f"{group}.template.spec", pod.containers[0]
    for what in ("cpu", "memory"):
        if what not in container.resources.limits:
            yield (
                f"{place}.containers[0].resources.limits",
                f"has no {what}: Ray would count that of the whole node. Say how much.",
            )
    volumes = {volume.name for volume in pod.volumes}
    for index, mount in enumerate(container.volumeMounts):
        if mount.name not in volumes:
            yield (
                f"{place}.containers[0].volumeMounts[{index}].name",
                f"{mount.name!r} is no volume of this pod. Add it under volumes.",
            )
