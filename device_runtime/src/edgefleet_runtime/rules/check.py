"""Whether this device can go by a telemetry policy: asked before a release is taken.

A release whose policy can't be honoured is rejected, never served without it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError, InvalidInputError, MissingExtraError
from edgefleet.protocol.policy_problems import check_policy

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgefleet.protocol.policy import TelemetryPolicy


def check_here(policy: TelemetryPolicy, models: Collection[str]) -> None:
    """Refuse a policy that this device can't go by; the message has the cure, for the report.

    Raises:
        MissingExtraError: it needs a library that isn't installed here.
        InvalidInputError: something is wrong in it.
    """
    try:
        check_policy(policy, models)
        sketches = policy.drift is not None or any(rule.quantiles for rule in policy.windows)
        if sketches and find_spec("datasketches") is None:
            raise MissingExtraError(
                "drift and quantiles need the library datasketches",
                cure="install it with: pip install 'edgefleet-runtime[drift]'",
            )
    except EdgeFleetError as error:
        kind = MissingExtraError if isinstance(error, MissingExtraError) else InvalidInputError
        message = f"its telemetry policy: {error.message}; {error.cure}"
        raise kind(" ".join(message.split()), cure=error.cure) from error
