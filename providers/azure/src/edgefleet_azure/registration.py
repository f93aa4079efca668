"""What a pipeline's last step, `register_entry`, is sent with, and what it tells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgefleet_azure.settings import AzureSettings

SCRIPT = Path(__file__).with_name("register_entry.py")
TRAINED_BY = "EDGEFLEET_TRAINED_BY"
"""Variable with the folder in which `RUN_FILE` holds the id of the run that trained."""
RUN_FILE = "id"
_REACHED = (
    "storage_url",
    "prefix",
    "subscription",
    "resource_group",
    "workspace",
    "ml_registry",
    "block_mib",
    "max_attempts",
    "arm_url",
)


def reach(settings: AzureSettings) -> dict[str, Any]:
    """What the step must know of the profile to reach the same registry."""
    told = settings.model_dump(mode="json")
    return {key: told[key] for key in _REACHED}
