"""AWS IoT Core's quotas on shadows and groups, which moto doesn't know.

https://docs.aws.amazon.com/general/latest/gr/iot-core.html
"""

from __future__ import annotations

import json
from typing import Any

from edgefleet_aws.cloud.calls import Fault

MAX_SHADOW = 8 << 10  # bytes of a state document
MAX_DEPTH = 8  # levels below "desired" or "reported"
MAX_GROUPS = 10  # of one thing


def refused_shadow(content: dict[str, Any]) -> Fault | None:
    """What AWS IoT answers to such an update of a shadow; None where it takes it."""
    state = content.get("state", {})
    size = len(json.dumps(state, separators=(",", ":")).encode())
    if size > MAX_SHADOW:
        said = f"the state of the shadow has {size} bytes, 8 KB are allowed"
        return Fault("RequestEntityTooLargeException", said, 413)
    parts = state.values() if isinstance(state, dict) else ()
    if any(_depth(part) > MAX_DEPTH for part in parts):
        said = f"the state of the shadow is nested more than {MAX_DEPTH} deep"
        return Fault("InvalidRequestException", said)
    return None


def _depth(value: Any) -> int:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
