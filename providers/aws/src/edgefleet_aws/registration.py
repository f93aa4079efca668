"""What a pipeline's last step, `register_entry`, is sent with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgefleet_aws.settings import AwsSettings

SCRIPT = Path(__file__).with_name("register_entry.py")
_REACHED = ("bucket", "prefix", "region", "endpoint_url", "part_mib", "max_attempts")


def reach(settings: AwsSettings) -> dict[str, Any]:
    """What the step must know of the profile to reach the same registry."""
    told = settings.model_dump(mode="json")
    return {key: told[key] for key in _REACHED}
