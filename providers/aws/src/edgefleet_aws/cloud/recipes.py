"""What a nucleus makes of recipes and deployments: pure decisions, no IO.

The rules of two nuclei, each cited in ``mock_rules.md``: the classic one (aws-greengrass-nucleus at
a28341c4) and the lite one (aws-greengrass-lite at 326e992b).
"""

from __future__ import annotations

import copy
import enum
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet_aws.cloud.topics import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from edgefleet_aws.cloud.components import Component

TOKEN_EXCHANGE = "aws.greengrass.TokenExchangeService"  # noqa: S105 - a component's name
_BUILT_IN = frozenset({TOKEN_EXCHANGE, "aws.greengrass.Nucleus", "aws.greengrass.NucleusLite"})
_VARIABLE = re.compile(r"\{([^{}]+)\}")


class Kind(enum.Enum):
    """Which nucleus a device runs."""

    CLASSIC = "classic"
    LITE = "lite"


class RefusedError(Exception):
    """A deployment that a nucleus ends as FAILED, with its reason."""


class Manifest(NamedTuple):
    """What of a recipe is for this platform."""

    lifecycle: Mapping[str, Any]
    artifacts: tuple[Mapping[str, Any], ...]


def manifest_for(
    recipe: Mapping[str, Any], kind: Kind, *, architecture: str, name: str
) -> Manifest:
    """The first manifest that fits: the order is the author's.

    Raises:
        RefusedError: none fits.
    """
    for manifest in recipe["Manifests"]:
        platform = manifest.get("Platform") or {}
        if _fits(platform, kind, architecture):
            return Manifest(manifest.get("Lifecycle") or {}, tuple(manifest.get("Artifacts") or ()))
    raise RefusedError(f"NO_AVAILABLE_COMPONENT_VERSION: {name} has no manifest for this platform")


def _fits(platform: Mapping[str, Any], kind: Kind, architecture: str) -> bool:
    facts = {"os": "linux", "architecture": architecture}
    if kind is Kind.LITE:
        facts["runtime"] = "aws_nucleus_lite"
        if "runtime" not in platform:
            return False
    for key, wanted in platform.items():
        if wanted in {"*", "all", None}:
            continue
        if facts.get(key) != wanted:
            return False
    return True


def default_configuration(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that a recipe begins with."""
    configuration = recipe.get("ComponentConfiguration") or {}
    return copy.deepcopy(configuration.get("DefaultConfiguration") or {})


def updated(
    configuration: Mapping[str, Any], update: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """A configuration after a deployment's update: reset first, then merge.

    https://docs.aws.amazon.com/greengrass/v2/developerguide/update-component-configurations.html
    """
    found = copy.deepcopy(dict(configuration))
    for pointer in update.get("reset") or ():
        found = _reset(found, [part for part in pointer.split("/") if part], defaults)
    merge = update.get("merge")
    return found if merge is None else merged(found, json.loads(merge))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Objects are merged key by key, all else is replaced."""
    found = dict(base)
    for key, value in over.items():
        there = found.get(key)
        both = isinstance(there, dict) and isinstance(value, dict)
        found[key] = merged(there, value) if both else value  # type: ignore[arg-type]
    return found


def _reset(found: dict[str, Any], path: list[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    if not path:
        return copy.deepcopy(dict(defaults))
    place: Any = found
    source: Any = defaults
    for key in path[:-1]:
        place = place.get(key) if isinstance(place, dict) else None
        source = source.get(key) if isinstance(source, dict) else None
    if isinstance(place, dict):
        if isinstance(source, dict) and path[-1] in source:
            place[path[-1]] = copy.deepcopy(source[path[-1]])
        else:
            place.pop(path[-1], None)
    return found


def changed_paths(
    before: Mapping[str, Any], after: Mapping[str, Any], below: tuple[str, ...] = ()
) -> list[list[str]]:
    """Paths of the values that differ, those that are gone included."""
    found: list[list[str]] = []
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += changed_paths(old, new, (*below, key))
        elif old != new:
            found.append([*below, key])
    return found


def script_of(lifecycle: Mapping[str, Any], phase: str) -> tuple[str, float | None] | None:
    """A phase's script and its time limit in seconds; keys of any case, as the classic has them."""
    for key, value in lifecycle.items():
        if key.lower() != phase:
            continue
        if isinstance(value, str):
            return value, None
        fields = {name.lower(): item for name, item in value.items()}
        limit = fields.get("timeout")
        return fields["script"], None if limit is None else float(limit)
    return None


def environment_of(lifecycle: Mapping[str, Any]) -> dict[str, str]:
    """What a recipe adds to its processes' environment."""
    for key, value in lifecycle.items():
        if key.lower() == "setenv" and isinstance(value, dict):
            return {name: str(item) for name, item in value.items()}
    return {}


def interpolated(text: str, value_of: Callable[[str], str | None]) -> str:
    """A text with its ``{namespace:key}`` variables filled in; unknown ones stay as they are."""

    def fill(found: re.Match[str]) -> str:
        value = value_of(found[1])
        return found[0] if value is None else value

    return _VARIABLE.sub(fill, text)


def filled(lifecycle: Mapping[str, Any], value_of: Callable[[str], str | None]) -> dict[str, Any]:
    """A lifecycle with the variables in all its texts filled in; a copy."""

    def walked(value: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            return {key: walked(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walked(item) for item in value]
        return interpolated(value, value_of) if isinstance(value, str) else value

    found: dict[str, Any] = walked(lifecycle)
    return found


def restarts(kind: Kind, *, new_version: bool, new_lifecycle: bool, has_update: bool) -> bool:
    """Whether a running component is started anew by a deployment.

    Args:
        kind: the nucleus's.
        new_version: the component's version differs.
        new_lifecycle: its scripts or environment differ, variables filled in.
        has_update: the deployment carries a configuration update for it, whatever it says.
    """
    if kind is Kind.LITE:  # deployment_handler.c: component_updated || is_component_config_updated
        return new_version or has_update
    return new_version or new_lifecycle  # GenericExternalService.java, the constructor


def root_components(
    deployments: Iterable[Mapping[str, Mapping[str, Any]]],
) -> dict[str, str]:
    """Component -> version over all deployments that a device takes part in.

    Raises:
        RefusedError: two want different versions of one.
    """
    found: dict[str, str] = {}
    for components in deployments:
        for name, wanted in components.items():
            version = wanted["componentVersion"]
            if found.setdefault(name, version) != version:
                raise RefusedError(
                    f"COMPONENT_VERSION_REQUIREMENTS_NOT_MET: {name} is wanted as {found[name]} "
                    f"and as {version} by different deployments"
                )
    return found


def resolved(
    roots: Mapping[str, str], component_of: Callable[[str, str], Component | None]
) -> dict[str, Component]:
    """The components of deployments, what they depend on first.

    Args:
        roots: component -> version.
        component_of: gives a component's version.

    Raises:
        RefusedError: one isn't there, or they depend on each other.
    """
    found: dict[str, Component] = {}

    def take(name: str, version: str, above: tuple[str, ...]) -> None:
        if name in _BUILT_IN or name in found:
            return
        if name in above:
            raise RefusedError(f"COMPONENT_CIRCULAR_DEPENDENCY_ERROR: {name}")
        component = component_of(name, version)
        if component is None:
            raise RefusedError(f"NO_AVAILABLE_COMPONENT_VERSION: {name} {version}")
        for other in component.recipe.get("ComponentDependencies") or {}:
            if other in _BUILT_IN:
                continue
            if other not in roots:
                raise RefusedError(f"NO_AVAILABLE_COMPONENT_VERSION: {name} needs {other}")
            take(other, roots[other], (*above, name))
        found[name] = component

    for name, version in roots.items():
        take(name, version, ())
    return found


def may_publish(
    configuration: Mapping[str, Any], operation: str, topic: str, *, thing: str
) -> bool:
    """Whether a component's access control allows an operation of the MQTT proxy on a topic."""
    control = configuration.get("accessControl", {})
    for policy in control.get("aws.greengrass.ipc.mqttproxy", {}).values():
        if not {"*", f"aws.greengrass#{operation}"} & set(policy.get("operations", ())):
            continue
        for resource in policy.get("resources", ()):
            allowed = resource.replace("{iot:thingName}", thing)
            if allowed in {"*", topic} or matches(topic, allowed):
                return True
    return False
