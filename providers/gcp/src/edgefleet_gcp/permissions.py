"""What each part of EdgeFleet must be allowed on Google Cloud: one list for page, doctor and tests.

Pure, and knows no vendor SDK. A test runs every part with exactly these permissions on the mock,
and compares them with the calls that it made. Which permission a call needs:
https://cloud.google.com/storage/docs/access-control/iam-json and
https://cloud.google.com/pubsub/docs/access-control.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

BUCKET, SUBSCRIPTION = "bucket", "subscription"
PLACES = (BUCKET, SUBSCRIPTION)
"""Where something may be allowed."""

OPERATOR: dict[str, dict[str, tuple[str, ...]]] = {
    "registry": {
        BUCKET: (
            "storage.objects.create",
            "storage.objects.delete",  # whoever replaces an object needs it
            "storage.objects.get",
            "storage.objects.list",
        )
    },
    "state": {
        BUCKET: (
            "storage.objects.create",
            "storage.objects.delete",
            "storage.objects.get",
            "storage.objects.list",
        )
    },
    "telemetry": {
        BUCKET: ("storage.objects.create", "storage.objects.get", "storage.objects.list"),
        SUBSCRIPTION: ("pubsub.subscriptions.consume",),
    },
}
"""What an operator of each part must be allowed, by place."""

DEVICE: dict[str, tuple[str, ...]] = {
    "read": ("storage.objects.get",),
    "write": ("storage.objects.create",),
    "publish": ("pubsub.topics.publish",),
}
"""What a device must be allowed: to read blobs, to write below its own folder, to publish."""


def operators(parts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What somebody who does all of these parts must be allowed, by place."""
    found: dict[str, set[str]] = {}
    for part in parts:
        for place, names in OPERATOR[part].items():
            found.setdefault(place, set()).update(names)
    return {place: tuple(sorted(found[place])) for place in PLACES if place in found}


def role(title: str, permissions: Iterable[str]) -> dict[str, Any]:
    """A custom role as ``gcloud iam roles create NAME --file`` takes it."""
    return {
        "title": title,
        "description": "The least that EdgeFleet needs here",
        "stage": "GA",
        "includedPermissions": sorted(set(permissions)),
    }


def below(bucket: str, folder: str) -> dict[str, str]:
    """A condition that is met by objects of a bucket below a folder only.

    https://cloud.google.com/storage/docs/access-control/iam#conditions
    """
    start = f"projects/_/buckets/{bucket}/objects/{folder.rstrip('/')}/"
    return {"title": "edgefleet folder", "expression": f'resource.name.startsWith("{start}")'}


def readable(document: dict[str, Any]) -> str:
    """A role as people read it: a permission a line."""
    return json.dumps(document, indent=2)
