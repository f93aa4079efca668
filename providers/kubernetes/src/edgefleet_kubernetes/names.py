"""Names of objects, labels and annotations: which object holds what of a fleet.

Rules kept here:

- Names of objects are RFC 1123 labels of at most 63 characters, so that a Service may have them
  too. What doesn't fit is cut and gets a digest of the whole.
- Names of devices are names of nodes, whole: an admission policy finds the node's name in them.

See https://kubernetes.io/docs/concepts/overview/working-with-objects/names/.
"""

from __future__ import annotations

import hashlib
import re

DOMAIN = "edgefleet.dev"
MANAGER = "edgefleet"
"""Our field manager in server-side apply, and what ``app.kubernetes.io/managed-by`` says."""

MANAGED_BY = "app.kubernetes.io/managed-by"
FLEET = f"{DOMAIN}/fleet"
GROUP = f"{DOMAIN}/group"
RUN = f"{DOMAIN}/run"
PART = f"{DOMAIN}/part"
"""Label: what an object is for, such as ``state``, ``pointer``, ``report`` or ``run``."""
LABEL_DOMAIN = f"label.{DOMAIN}"
"""Before the slash of the node labels that are a device's labels."""
KEY = f"{DOMAIN}/key"
"""Annotation: the key of a state document."""

POINTER_KEY = "pointer.json"
REPORT_KEY = "report.json"
MAX_NAME = 63
_DIGEST = 8  # hexadecimal digits of the digest in a name that was cut
_PLAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_OTHER = re.compile(r"[^a-z0-9]+")


def object_name(prefix: str, part: str, name: str = "") -> str:
    """Name of an object of a fleet: ``PREFIX-PART-NAME``; the same for the same arguments.

    Args:
        prefix: the fleet's.
        part: what it is for, such as ``runtime``.
        name: such as a group's; empty for an object that a fleet has one of.
    """
    start = f"{prefix}-{part}"
    if not name:
        return start
    whole = f"{start}-{name}"
    if _PLAIN.fullmatch(name) and len(whole) <= MAX_NAME:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    room = MAX_NAME - len(start) - len(digest) - 2
    cut = _OTHER.sub("-", name.lower())[: max(0, room)].strip("-")
    return "-".join(piece for piece in (start, cut, digest) if piece)


def runtime_name(prefix: str, group: str) -> str:
    """Of the DaemonSet and the Service of a group."""
    return object_name(prefix, "runtime", group)


def pointer_name(prefix: str, group: str) -> str:
    """Of the ConfigMap with a group's pointer."""
    return object_name(prefix, "pointer", group)


def report_name(prefix: str, node: str) -> str:
    """Of the ConfigMap with a device's report, in the reports' namespace; ends in the node's."""
    return f"{prefix}-report-{node}"


def device_account(prefix: str) -> str:
    """Of the ServiceAccount that the runtime's pods have."""
    return object_name(prefix, "device")


def serving_secret(prefix: str) -> str:
    """Of the Secret with the token that applications show to the runtime."""
    return object_name(prefix, "serving")


def cluster_name(namespace: str, prefix: str, part: str) -> str:
    """Of an object that lies in no namespace; no other fleet of the cluster has it."""
    return f"{namespace}.{prefix}.{part}"


def state_name(prefix: str, key: str) -> str:
    """Of the ConfigMap that holds a state document: a digest, as keys are paths in any case."""
    return f"{prefix}-state-{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def fleet_labels(prefix: str, **more: str) -> dict[str, str]:
    """Labels of every object of a fleet.

    Args:
        prefix: the fleet's.
        more: labels of `DOMAIN`, by what follows the slash, such as ``group``.
    """
    return {
        MANAGED_BY: MANAGER,
        FLEET: prefix,
        **{f"{DOMAIN}/{name}": value for name, value in more.items()},
    }
