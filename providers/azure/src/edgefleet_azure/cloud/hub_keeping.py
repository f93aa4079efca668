"""What an IoT Hub keeps when the mock cloud stops: all but who is connected."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgefleet_azure.cloud.hub_twins import Section, Twin
from edgefleet_azure.cloud.hub_values import Configuration, Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_azure.cloud.hub_state import HubState


def kept(state: HubState) -> dict[str, Any]:
    """A hub as JSON."""
    with state.changing():
        return {
            "number": state.number(),
            "identities": [asdict(one) for one in state.identities.values()],
            "configurations": [asdict(one) for one in state.configurations.values()],
        }


def restore(state: HubState, kept: Mapping[str, Any]) -> None:
    """Fill a new hub with what another one kept."""
    with state.changing():
        state.go_on_above(kept["number"])
        for one in kept["identities"]:
            identity = Identity(
                **{
                    **one,
                    "twin": _twin(one["twin"]),
                    "parents": tuple(one["parents"]),
                    "connected": 0,
                }
            )
            state.identities[identity.device, identity.module] = identity
        for one in kept["configurations"]:
            state.configurations[one["id"]] = Configuration(**one)


def _twin(kept: Mapping[str, Any]) -> Twin:
    sections = {name: Section(**kept[name]) for name in ("desired", "reported")}
    return Twin(tags=kept["tags"], version=kept["version"], **sections)
