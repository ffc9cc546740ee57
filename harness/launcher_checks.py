"""What is wrong with a file for Ray's cluster launcher (`ray up`), by Ray's own schema and ours.

The schema is a file in Ray's package and is read as one: importing Ray would take a second.
"""

from __future__ import annotations

import importlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.config.declarations import Problem, describe, dotted
from harness.errors import listed, near_match


def check_launcher(path: Path, data: Any) -> list[Problem]:
    """Return all that `ray up` would refuse, and what would only show on the cluster."""
    problems = [Problem(str(path), key, message) for key, message in _against_schema(data)]
    if problems:
        return problems
    return [Problem(str(path), key, message) for key, message in _pitfalls(data)]


def _against_schema(data: Any) -> list[tuple[str, str]]:
    try:
        jsonschema = importlib.import_module("jsonschema")  # comes with Ray
    except ImportError:
        return []
    package = find_spec("ray")
    folders = package.submodule_search_locations if package else None
    schema_file = Path(*(folders or ["."])[:1], "autoscaler", "ray-schema.json")
    if not schema_file.is_file():
        return []
    schema = json.loads(schema_file.read_text(encoding="utf-8"))
    errors = jsonschema.Draft7Validator(schema).iter_errors(data)
    return [_in_our_words(error) for error in sorted(errors, key=lambda e: list(map(str, e.path)))]


def _in_our_words(error: Any) -> tuple[str, str]:
    key = dotted(error.absolute_path)
    if error.validator == "additionalProperties":
        known = tuple(error.schema.get("properties", {}))
        unknown = [name for name in error.instance if name not in known]
        return key, f"{listed(unknown)} is not a known key. {near_match(unknown[0], known)}"
    if error.validator == "required":
        return key, f"{error.message.replace(' is a required property', '')} is missing."
    if error.validator == "type":
        return key, f"found {describe(error.instance)}, expected {error.validator_value}."
    return key, f"{error.message}."


def _pitfalls(data: dict[str, Any]) -> list[tuple[str, str]]:
    types: dict[str, Any] = data.get("available_node_types") or {}
    found = [*_node_types(data, types)]
    starts = " ".join(map(str, data.get("head_start_ray_commands") or ()))
    if starts and "--autoscaling-config" not in starts:
        found.append(
            (
                "head_start_ray_commands",
                "the head starts without --autoscaling-config=~/ray_bootstrap_config.yaml, so no "
                "worker would ever be started. Add it to `ray start --head`.",
            )
        )
    if starts and "usage-stats" not in starts and "RAY_USAGE_STATS_ENABLED" not in starts:
        found.append(
            (
                "head_start_ray_commands",
                "the head reports usage statistics. Add --disable-usage-stats to `ray start`.",
            )
        )
    return found


def _node_types(data: dict[str, Any], types: dict[str, Any]) -> list[tuple[str, str]]:
    head, found = data.get("head_node_type"), []
    if types and head is None:
        return [("head_node_type", f"is missing. Expected one of {listed(types)}.")]
    if types and head not in types:
        hint = near_match(str(head), tuple(types))
        found.append(("head_node_type", f"{head!r} is not in available_node_types. {hint}"))
    wanted = sum(kind.get("min_workers", 0) for kind in types.values())
    most = data.get("max_workers", 2)
    if wanted > most:
        found.append(
            (
                "max_workers",
                f"found {most}, but min_workers of the node types come to {wanted}. Raise it.",
            )
        )
    for name, kind in types.items():
        least, limit = kind.get("min_workers", 0), kind.get("max_workers", most)
        if least > limit:
            key = f"available_node_types.{name}.min_workers"
            found.append((key, f"found {least}, expected at most max_workers, {limit}."))
        if name != head and not kind.get("resources", {}).get("CPU"):
            key = f"available_node_types.{name}.resources"
            found.append((key, "says no CPU: the autoscaler would start no such node for a trial."))
    return found
