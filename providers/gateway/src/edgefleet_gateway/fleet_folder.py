"""The profile of a fleet that lies whole in one folder, and whose devices pull."""

from __future__ import annotations

import json

_PROFILE = """\
# A fleet in this folder, whose devices pull from a gateway.
[profiles.default]
registry = "local"
trainer = "local"
telemetry = "local"
state = "local"
deployers = ["gateway"]

[profiles.default.local]
root = "."

[profiles.default.gateway]
addresses = [{address}]
authority = "authority"
"""


def profile_of_folder(address: str, **settings: float) -> str:
    """The text of an ``edgefleet.toml``; it ends in the table of the gateway's settings.

    Args:
        address: where devices reach the gateway, such as ``https://localhost:8443``.
        settings: of the gateway, beside its addresses and its authority's folder.
    """
    more = "".join(f"{name} = {value}\n" for name, value in settings.items())
    return _PROFILE.format(address=json.dumps(address)) + more
