"""The page of permissions, written from the list.

``python -m edgefleet_gcp.permissions_page > docs/reference/gcp-permissions.md``; a test holds that
file against it.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from edgefleet_gcp.permissions import DEVICE, OPERATOR, below, readable, role

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# Permissions on Google Cloud

<!-- Made by `python -m edgefleet_gcp.permissions_page`; don't edit. -->

The least that each part needs, as custom roles. `gcloud iam roles create NAME --project PROJECT
--file FILE` takes each; give it at the place that it stands at. `BUCKET`, `PREFIX` and `DEVICE`
stand for yours.

Tests run each part with exactly these roles on the mock cloud and compare them with the calls that
were made; nothing of it was tried in a real project.

google-cloud-storage asks for `storage.buckets.get` beside, for traces, and goes without it.

`edgefleet doctor --profile P` asks Google which of them the identity in use has. A role under a
condition on objects' names shows as missing there.
"""
_PLACES = {"bucket": "the bucket", "subscription": "the subscription", "topic": "the topic"}
_ABOUT = {
    "registry": "Push, approve, list and delete versions. Who replaces an object must be allowed "
    "to delete\nit; a version's record is one.",
    "state": "Releases, pointers and other shared documents.",
    "telemetry": "Read what devices recorded. Creating is for published events, which are stored "
    "before they\nare acknowledged; without `trust_senders` neither it nor the subscription is "
    "needed.",
}
_DEVICES = {
    "read": ("on the bucket, under the condition below", "PREFIX/blobs"),
    "write": ("on the bucket, under the condition below", "PREFIX/devices/DEVICE"),
    "publish": ("on the topic, where devices publish hot events", None),
}


def page() -> str:
    """The page as Markdown."""
    return "\n".join(_parts()).rstrip("\n") + "\n"


def _parts() -> Iterator[str]:
    yield _HEAD
    yield "## Operators\n"
    for part, places in OPERATOR.items():
        yield f"### {part}\n"
        yield f"{_ABOUT[part]}\n"
        for place, permissions in places.items():
            document = role(f"EdgeFleet {part}, {place}", permissions)
            yield f"On {_PLACES[place]}:\n"
            yield f"```json\n{readable(document)}\n```\n"
    yield "## Devices\n"
    yield (
        "Each device has a principal of its own, or its pods have: a service account, or a subject "
        "of a\nworkload identity pool. What it may create is bound to its own folder; "
        "[ADR 0027](../adr/0027-whose-a-published-event-is.md)\ntells why.\n"
    )
    for what, permissions in DEVICE.items():
        where, folder = _DEVICES[what]
        yield f"### {what}\n"
        yield f"{where[0].upper()}{where[1:]}:\n"
        yield f"```json\n{readable(role(f'EdgeFleet device, {what}', permissions))}\n```\n"
        if folder is not None:
            condition = json.dumps(below("BUCKET", folder), indent=2)
            yield f"```json\n{condition}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(page())
