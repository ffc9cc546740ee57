"""What a dataset's name says: a store by its path, or a simulated screen with its options."""

from __future__ import annotations

from dataclasses import dataclass


def is_store_path(dataset: str) -> bool:
    """Whether a job names a store by its path rather than a card."""
    return dataset.rstrip("/").endswith(".zarr")


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulated screen as a job names it: ``sim:small?seed=3``."""

    preset: str
    options: tuple[tuple[str, int | float | str], ...] = ()

    @property
    def name(self) -> str:
        """The dataset's name, the same however the options are ordered."""
        options = "&".join(f"{name}={value}" for name, value in self.options)
        return f"sim:{self.preset}?{options}" if options else f"sim:{self.preset}"


def parse_simulated(name: str) -> Simulated | None:
    """Parse the name of a simulated screen; None for any other dataset's name."""
    if not name.startswith("sim:"):
        return None
    preset, _, query = name.removeprefix("sim:").partition("?")
    parts = [part.partition("=") for part in query.split("&")] if query else []
    options = {key: _number(value) for key, _, value in parts}
    if not preset or len(options) < len(parts) or not all(k and v for k, _, v in parts):
        raise ValueError(
            f"{name!r} does not name a simulated screen. Expected sim:PRESET, or with "
            "options, each given once, sim:PRESET?seed=1&contexts=2."
        )
    return Simulated(preset, tuple(sorted(options.items())))


def _number(text: str) -> int | float | str:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
