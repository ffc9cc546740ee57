"""What the stages of a trial need of a machine, and which of them go together.

Stages that need the same are one call: that is cheaper, and nothing has to be written down between
them. Where they differ, each is a call of its own, so that a GPU is held for the fit alone.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator

from harness.config import Declared, check_size
from harness.storage import parse_size

Stage = Literal["fit", "predict", "score"]

STAGES: tuple[Stage, ...] = ("fit", "predict", "score")
"""The stages of a trial, in their order."""

BUILT_IN = ("CPU", "GPU", "memory", "object_store_memory")
"""What Ray calls the resources that have keys of their own."""


class Resources(Declared):
    """What one call needs of a machine.

    `custom` are resources by the names that nodes were started with, such as ``{big_disk: 1}``, or
    Ray's own for the kind of a GPU, ``{"accelerator_type:H100": 0.01}``.
    """

    cpus: Annotated[float, Field(ge=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    memory: str | None = None
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(default={})

    @property
    def memory_bytes(self) -> int | None:
        """The memory in bytes; None where any amount will do."""
        return None if self.memory is None else parse_size(self.memory)

    @property
    def threads(self) -> int:
        """How many threads may run at once: one for each CPU, and at least one."""
        return max(1, int(self.cpus))

    def with_memory(self, size: int) -> Resources:
        """Return the same needs with `size` bytes of memory."""
        return self.model_copy(update={"memory": f"{size}B"})

    @classmethod
    def largest(cls, *needs: Resources) -> Resources:
        """Return the most of each resource that any of `needs` asks for."""
        sizes = [need.memory for need in needs if need.memory is not None]
        custom: dict[str, float] = {}
        for need in needs:
            custom |= {
                name: max(number, custom.get(name, 0)) for name, number in need.custom.items()
            }
        return cls(
            cpus=max(need.cpus for need in needs),
            gpus=max(need.gpus for need in needs),
            memory=max(sizes, key=parse_size, default=None),
            custom=custom,
        )

    _check_memory = field_validator("memory")(check_size)

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"found {gpus:g}, expected a share of one GPU, or a whole number.")
        return gpus

    @field_validator("custom")
    @classmethod
    def _has_no_key_of_its_own(cls, custom: dict[str, float]) -> dict[str, float]:
        if found := [name for name in custom if name in BUILT_IN]:
            raise ValueError(
                f"found {found[0]!r}, which has a key of its own. Use cpus, gpus or memory."
            )
        return custom


class Part(NamedTuple):
    """Stages that follow each other and need the same: one call."""

    stages: tuple[Stage, ...]
    needs: Resources


class StageResources(Declared):
    """What each stage of a trial needs."""

    fit: Resources = Resources()
    predict: Resources = Resources()
    score: Resources = Resources()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The calls that a trial comes to."""
        parts: list[Part] = []
        for stage in STAGES:
            needs: Resources = getattr(self, stage)
            if parts and parts[-1].needs == needs:
                parts[-1] = Part((*parts[-1].stages, stage), needs)
            else:
                parts.append(Part((stage,), needs))
        return tuple(parts)

    @property
    def largest(self) -> Resources:
        """The most that any stage needs."""
        return Resources.largest(self.fit, self.predict, self.score)
