"""What a device with IoT Edge must have, of all the deployments that target it. Pure.

Rules kept here, each in ``mock_rules.md``:

- Of base deployments the one with the highest priority wins; of equal ones the newest.
- Layered deployments go on top of the base, the lowest priority first, of equal ones the oldest
  first, so that the highest and newest has the last word. They need a priority above the base's,
  and nothing of them happens without a base.
- ``properties.desired`` of a module is the whole of it, ``properties.desired.a.b`` a place in it.
- A layer that names no part of ``$edgeAgent`` or ``$edgeHub`` is merged and yet stays targeted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WHOLE = "properties.desired"
SYSTEM = ("$edgeAgent", "$edgeHub")
APPLIED, TARGETED = "Applied", "Targeted"


class Deployment(NamedTuple):
    """An automatic deployment, as far as merging goes.

    Attributes:
        id: its name.
        priority: higher ones win.
        created: rises with each deployment that is made.
        modules: ``modulesContent``.
    """

    id: str
    priority: int
    created: int
    modules: Mapping[str, Mapping[str, Any]]

    @property
    def layered(self) -> bool:
        """Whether it goes on top of a base."""
        return WHOLE not in self.modules.get("$edgeAgent", {})

    @property
    def only_properties(self) -> bool:
        """Whether it says nothing to edgeAgent and edgeHub themselves."""
        return not any(self.modules.get(name) for name in SYSTEM)


class Place(NamedTuple):
    """What is to be at one place in a module's desired properties.

    Attributes:
        path: keys from the top; empty for the whole.
        value: what is to be there.
    """

    path: tuple[str, ...]
    value: Any


class Merged(NamedTuple):
    """What deployments make of one device.

    Attributes:
        status: ``Applied`` or ``Targeted``, for every deployment that targets the device.
        places: of each module, in the order in which they are set.
        base: the base deployment's name; None where there is none.
    """

    status: dict[str, str]
    places: dict[str, tuple[Place, ...]]
    base: str | None


def merge(deployments: Iterable[Deployment]) -> Merged:
    """What the deployments that target a device make of it."""
    ranked = sorted(deployments, key=lambda one: (one.priority, one.created))
    status = {one.id: TARGETED for one in ranked}
    base = next((one for one in reversed(ranked) if not one.layered), None)
    if base is None:
        return Merged(status, {}, None)
    on_top = [one for one in ranked if one.layered and one.priority > base.priority]
    for one in (base, *on_top):
        if one is base or not one.only_properties:
            status[one.id] = APPLIED
    places: dict[str, list[Place]] = {}
    for one in (base, *on_top):
        for module, content in one.modules.items():
            # The whole before its parts, whatever order somebody wrote them in.
            for key in sorted(content, key=len):
                place = Place(path_of(key), content[key])
                placed = places.setdefault(module, [])
                placed[:] = [kept for kept in placed if not covers(place.path, kept.path)]
                placed.append(place)
    return Merged(status, {name: tuple(found) for name, found in places.items()}, base.id)


def path_of(key: str) -> tuple[str, ...]:
    """The place that a key of a module's content names.

    Raises:
        ValueError: it names none.
    """
    if key == WHOLE:
        return ()
    if not key.startswith(f"{WHOLE}."):
        raise ValueError(f"{key!r} is no place in desired properties")
    path = tuple(key.removeprefix(f"{WHOLE}.").split("."))
    if not all(path):
        raise ValueError(f"{key!r} has an empty part")
    return path


def covers(path: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether a place is another, or holds it."""
    return other[: len(path)] == path


def placed(content: Mapping[str, Any], places: Iterable[Place]) -> dict[str, Any]:
    """Desired properties with every place set; the others stay as they are."""
    result = dict(content)
    for place in places:
        result = _with(result, place.path, place.value)
    return result


def _with(content: Mapping[str, Any], path: tuple[str, ...], value: Any) -> Any:  # noqa: ANN401 - JSON
    if not path:
        return value
    first, *rest = path
    inner = content.get(first)
    below = _with(inner if isinstance(inner, dict) else {}, tuple(rest), value)
    return {**content, first: below}
