"""Pointers in layered deployments of IoT Hub: read, rendered, put in place, retired.

Rules kept here:

- A pointer is a layer of its own; what IoT Hub takes of several is the highest priority, which is
  the highest pointer. `WantedPointers` keeps that one first, so that racing operators converge.
- Rollback is a new layer of a higher number, never an older one again.
- A layer is retired only when no module twin holds it any more, so after a newer one has been
  evaluated; a group has at most two.
- Deployments of others are never changed. How many calls anything takes depends on groups, never
  on devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgefleet.errors import ConflictError, DocumentError, LimitExceededError
from edgefleet.interfaces.policy import RolloutProgress
from edgefleet.interfaces.values import Action, Rendered
from edgefleet.interfaces.wanted import WantedPointers
from edgefleet_azure import manifests
from edgefleet_azure.hubs import MAX_DEPLOYMENTS, one_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgefleet.interfaces.state import StateStore
    from edgefleet.protocol.pointer import Pointer
    from edgefleet_azure.groups import DeviceGroups
    from edgefleet_azure.hubs import Hub
    from edgefleet_azure.manifests import Grant, Layer
    from edgefleet_azure.settings import AzureSettings

MAX_ROUNDS = 20  # of publishing, while others publish to the same group
MAX_LAYERS = 2  # of a group


class ReadGrants(Protocol):
    """How devices come to read blobs; the part of access that travels with pointers."""

    def current(self, group: str) -> Grant | None:
        """What a group's devices are given now; None where they need no word of ours."""


class _InPlace(NamedTuple):
    """What a hub has.

    Attributes:
        layers: of the group, the newest first.
        base: the fleet's base deployment; None for none.
        total: of all configurations of the hub.
    """

    layers: tuple[Layer, ...]
    base: Mapping[str, Any] | None
    total: int

    @property
    def newest(self) -> Layer | None:
        return self.layers[0] if self.layers else None


class GroupLayers:
    """The layers of one fleet's groups.

    Args:
        settings: of the fleet.
        groups: which hub a group is in.
        state: gives the profile's state store.
        deployer: name of the deployer in the profile.
        grants: how devices may read blobs; None where they need no word of ours.
    """

    def __init__(
        self,
        settings: AzureSettings,
        groups: DeviceGroups,
        state: Callable[[], StateStore],
        *,
        deployer: str,
        grants: ReadGrants | None = None,
    ) -> None:
        self._settings = settings
        self._groups = groups
        self._grants = grants
        self._wanted = WantedPointers(state, deployer=deployer)

    def read(self, group: str) -> Pointer | None:
        """The pointer that a group's newest layer carries; None for none."""
        newest = self.newest(group)
        return None if newest is None else newest.pointer

    def newest(self, group: str) -> Layer | None:
        """A group's newest layer; None for none."""
        if not self._groups.has(group):
            return None
        return self._in_place(self._groups.hub_of(group), group).newest

    def render(self, group: str, pointer: Pointer) -> Iterator[Rendered]:
        """What `publish` would put in place.

        Raises:
            LimitExceededError: the hub has no room for it, or no twin could hold it.
        """
        place = self._in_place(self._groups.hub_of(group), group)
        layer = self._layer(group, pointer)
        newest = place.newest
        if newest is not None and _carried(newest) == pointer:
            action, content = Action.UNCHANGED, manifests.encoded(newest.document)
        else:
            action = Action.CREATE if newest is None else Action.UPDATE
            content = manifests.encoded(layer)
            self._refuse_beyond(place)
        if place.base is None:
            base = manifests.base(self._settings)
            yield Rendered(
                path=f"{base['id']}.json", content=manifests.encoded(base), action=Action.CREATE
            )
        else:
            yield Rendered(
                path=f"{place.base['id']}.json",
                content=manifests.encoded(place.base),
                action=Action.UNCHANGED,
            )
        yield Rendered(path=f"layer-{group}.json", content=content, action=action)

    def publish(self, group: str, pointer: Pointer) -> None:
        """Have a group's newest layer carry the highest pointer, and that be this one.

        Raises:
            ConflictError: there is a higher one.
            LimitExceededError: the hub has no room for another layer.
        """
        hub = self._groups.hub_of(group)
        highest = self._wanted.raise_to(group, pointer).pointer
        self._put(hub, group, highest)
        for _ in range(MAX_ROUNDS):
            wanted = self._wanted.highest(group).pointer
            if wanted.pair == highest.pair:
                break
            highest = wanted
            self._put(hub, group, highest)
        if highest.pair > pointer.pair:
            raise ConflictError(
                f"pointer {highest.pair} was put on {group} at the same time",
                cure="read the group again and repeat",
            )

    def renew(self, group: str) -> bool:
        """Give a group's devices the access of now, beside the same pointer; a new layer.

        Returns:
            Whether there was a pointer to put it beside.
        """
        hub = self._groups.hub_of(group)
        newest = self._in_place(hub, group).newest
        if newest is None:
            return False
        self._put(hub, group, newest.pointer)
        return True

    def progress(self, group: str) -> RolloutProgress | None:
        """What the newest layer's own metrics count, in one call for all devices."""
        if not self._groups.has(group):
            return None
        hub = self._groups.hub_of(group)
        newest = self._in_place(hub, group).newest
        found = None if newest is None else hub.configuration(newest.id)
        if found is None:
            return None
        results: dict[str, int] = (found.get("metrics") or {}).get("results") or {}
        told = results.get("told", 0)
        counts = {state: results.get(state, 0) for state in ("succeeded", "rejected", "waiting")}
        counts["in progress"] = max(0, told - sum(counts.values()))
        return RolloutProgress(
            state="open", devices={state: count for state, count in counts.items() if count}
        )

    def _layer(self, group: str, pointer: Pointer) -> dict[str, Any]:
        grant = None if self._grants is None else self._grants.current(group)
        return manifests.layer(self._settings.prefix, group, pointer, grant)

    def _in_place(self, hub: Hub, group: str) -> _InPlace:
        found = hub.configurations()
        layers = [
            layer
            for one in found
            if (layer := manifests.read_layer(one, self._settings.prefix)) is not None
            and layer.group == group
        ]
        layers.sort(key=lambda layer: (layer.pair, layer.generation), reverse=True)
        base = next((one for one in found if manifests.is_base(one, self._settings.prefix)), None)
        return _InPlace(tuple(layers), base, len(found))

    def _refuse_beyond(self, place: _InPlace) -> None:
        """Refuse what a full hub would."""
        retired = max(0, len(place.layers) - (MAX_LAYERS - 1))
        needed = 1 + (place.base is None) - retired
        if place.total + needed > MAX_DEPLOYMENTS:
            raise LimitExceededError(
                f"the hub holds {place.total} deployments of {MAX_DEPLOYMENTS}, and this needs "
                f"{needed} more",
                cure="delete deployments that nobody needs, or name another hub in `hubs` of the "
                "profile for further groups",
            )

    def _put(self, hub: Hub, group: str, pointer: Pointer) -> None:
        """Have a layer with that pointer, and none too many."""
        place = self._in_place(hub, group)
        layer = self._layer(group, pointer)
        if place.newest is not None and place.newest.id == layer["id"]:
            if _carried(place.newest) != pointer:
                raise ConflictError(
                    f"{group} holds pointer {pointer.pair} with other content",
                    cure="read the group again and repeat",
                    retryable=False,
                )
            self._retire(hub, place.layers)
            return
        self._refuse_beyond(place)
        self._make_room(hub, place.layers)
        if place.base is None:
            hub.create_configuration(manifests.base(self._settings))
        hub.create_configuration(layer)
        self._retire(hub, self._in_place(hub, group).layers)

    def _make_room(self, hub: Hub, layers: Sequence[Layer]) -> None:
        """Have at most one layer, before another one comes.

        Where the newest hasn't been evaluated yet, it is the one to go: a newer one comes at once,
        and until then devices keep what they have.
        """
        if len(layers) < MAX_LAYERS:
            return
        newest, *older = layers
        if self._held(hub, older):
            hub.delete_configuration(newest.id)
            gone = older[1:]
        else:
            gone = older
        for layer in gone:
            hub.delete_configuration(layer.id)

    def _retire(self, hub: Hub, layers: Sequence[Layer]) -> None:
        """Retire what no module twin holds any more, and what is more than two."""
        if len(layers) < MAX_LAYERS:
            return
        older = layers[1:]
        gone = older[1:] if self._held(hub, older) else older
        for layer in gone:
            hub.delete_configuration(layer.id)

    @staticmethod
    def _held(hub: Hub, layers: Sequence[Layer]) -> bool:
        """Whether module twins hold one of these layers still."""
        place = f"properties.desired.{manifests.WANTED}.layer"
        held = one_of(place, [layer.id for layer in layers])
        return bool(hub.count("devices.modules", f"{manifests.OF_MODULE} AND {held}"))


def _carried(layer: Layer) -> Pointer | None:
    """The pointer in a layer; None also for what is none."""
    try:
        return layer.pointer
    except DocumentError:
        return None
