"""The account's fleet indexing: our named shadow in it, and everything else as it was.

Rules kept here:

- AWS keeps one setting for an account and region, which others use as well. It is read, our
  shadow's name is added or taken out, and all of it is sent back; an edit by somebody else within
  that one call is lost, because AWS has no compare-and-swap here.
- What was done is kept in the fleet's stack. Only what a fleet of ours turned on is turned off,
  and only by the last fleet of the account that needs it.

https://docs.aws.amazon.com/iot/latest/developerguide/managing-index.html
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, cast

from edgefleet_aws.names import SHADOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgefleet_aws.clients import Iot

Done = Literal["no", "kept", "name", "all"]
"""Nothing; it was there before us; the name was added; indexing was turned on for it, too."""
# AWS fills it in by the modes that are on, and nobody can change it.
_AWS_OWN = "managedFields"


def read(iot: Iot) -> dict[str, Any]:
    """The account's setting for things."""
    there = iot.get_indexing_configuration().get("thingIndexingConfiguration", {})
    return {key: value for key, value in there.items() if key != _AWS_OWN}


def write(iot: Iot, wanted: Mapping[str, Any]) -> None:
    """Change the account's setting for things; that for groups stays."""
    iot.update_indexing_configuration(thingIndexingConfiguration=dict(wanted))


def to_do(there: Mapping[str, Any], before: str, others: Iterable[str]) -> Done:
    """What a fleet that wants its shadow indexed does to the setting.

    Args:
        there: the setting.
        before: what this fleet did earlier.
        others: what other fleets of the account did.
    """
    if before in {"name", "all"}:
        return cast("Done", before)
    if not _on(there):
        return "all" if _off(there) else "name"
    if before == "kept":
        return "kept"
    done = set(others)
    return "all" if "all" in done else "name" if "name" in done else "kept"


def with_shadow(there: Mapping[str, Any]) -> dict[str, Any]:
    """The setting with our shadow in it."""
    return {
        **there,
        "thingIndexingMode": "REGISTRY" if _off(there) else there["thingIndexingMode"],
        "namedShadowIndexingMode": "ON",
        "filter": {
            **there.get("filter", {}),
            "namedShadowNames": sorted({*_names(there), SHADOW}),
        },
    }


def without_shadow(there: Mapping[str, Any], done: str) -> dict[str, Any]:
    """The setting without what a fleet of ours put there.

    Args:
        there: the setting.
        done: what the fleet did.
    """
    if done not in {"name", "all"} or SHADOW not in _names(there):
        return dict(there)
    left = [name for name in _names(there) if name != SHADOW]
    wanted = {**there, "filter": {**there.get("filter", {}), "namedShadowNames": left}}
    if not left:
        wanted["namedShadowIndexingMode"] = "OFF"
        if done == "all" and _is_ours_alone(there):
            wanted["thingIndexingMode"] = "OFF"
    return wanted


def document(wanted: Mapping[str, Any]) -> bytes:
    """The request that changes the setting, as people read it."""
    request = {"thingIndexingConfiguration": wanted}
    return json.dumps(request, indent=2, sort_keys=True).encode() + b"\n"


def _names(there: Mapping[str, Any]) -> list[str]:
    return list(there.get("filter", {}).get("namedShadowNames", ()))


def _on(there: Mapping[str, Any]) -> bool:
    """Whether our shadow is indexed."""
    return there.get("namedShadowIndexingMode") == "ON" and SHADOW in _names(there)


def _off(there: Mapping[str, Any]) -> bool:
    return bool(there.get("thingIndexingMode", "OFF") == "OFF")


def _is_ours_alone(there: Mapping[str, Any]) -> bool:
    """Whether nobody turned on more than we did."""
    modes = ("thingConnectivityIndexingMode", "deviceDefenderIndexingMode")
    return (
        there.get("thingIndexingMode") == "REGISTRY"
        and all(there.get(mode, "OFF") == "OFF" for mode in modes)
        and not there.get("customFields")
    )
