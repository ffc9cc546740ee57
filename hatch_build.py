"""Put jobs/, cluster/ and datasets/ into the wheel as `harness/share/`.

Plain `force-include` would do, were it not applied to editable installs as well: there it leaves
a folder `harness/` in site-packages which hides the checkout.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DECLARATIONS = ("jobs", "cluster", "datasets")


class ShareDeclarations(BuildHookInterface[Any]):
    """Adds the declarations to wheels, and leaves editable installs alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add each folder under its installed name, unless the install is editable."""
        if version == "standard":
            shared = {name: f"harness/share/{name}" for name in DECLARATIONS}
            build_data["force_include"].update(shared)
