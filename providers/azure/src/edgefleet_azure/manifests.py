"""Documents of a fleet for IoT Hub: its base deployment, and a layer for each pointer. Pure.

Rules kept here:

- The base says what runs: edgeAgent, edgeHub, the runtime with its persistent store and its socket
  directory, and routes with priority and time to live. It sets nothing below
  ``properties.desired.edgefleet`` of the runtime's module, so that only layers do.
- A layer sets that one property and nothing else, so that no container is touched by a release.
- Priorities of layers rise with (epoch, number) of their pointers; of equal ones IoT Hub takes the
  newest, which is how renewed access replaces what was there before.
- A manifest is written in schema versions that IoT Edge 1.6 reads, and others are refused.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import DocumentError, InvalidInputError, LimitExceededError
from edgefleet.protocol.pointer import read_pointer
from edgefleet_azure.twins import MAX_PROPERTIES, check, check_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.protocol.pointer import Pointer
    from edgefleet_azure.settings import AzureSettings

MODULE = "edgefleet"
"""The runtime's module on every device."""
OF_MODULE = f"moduleId = '{MODULE}'"
"""The condition for its twins."""
WANTED = "edgefleet"
"""Property of the module's twin that layers set, and that holds the report on the other side."""
UPLOAD = "edgefleetUpload"
"""Property that is the device's own: where it writes, and with what."""
OUTPUT = "hot"
STORE, SOCKETS = "/var/lib/edgefleet", "/run/edgefleet"
"""Folders of the host that the runtime's container is given."""
USER = "10500:10500"
"""Whom the runtime runs as: the image's own user, which those folders of the host belong to."""
AGENT_SCHEMA, HUB_SCHEMA = "1.1", "1.2"
AGENT_SCHEMAS, HUB_SCHEMAS = frozenset({"1.0", "1.1"}), frozenset({"1.0", "1.1", "1.2"})
"""Of ``$edgeAgent`` and ``$edgeHub``, as IoT Edge 1.6 reads them."""
EDGE = "1.6"
BASE_PRIORITY = 10
FIRST_LAYER = 1000
"""Layers have a higher priority; a base of others below it works as well as ours."""
_NUMBERS = 10_000_000  # pointers of an epoch; priorities have 31 bits
HOT_TTL_S, STORE_TTL_S = 7 * 86_400, 7 * 86_400  # edgeHub keeps what it can't send so long
_FLEET, _GROUP = "edgefleet-fleet", "edgefleet-group"
_PAIR, _ACCESS = "edgefleet-pointer", "edgefleet-access"
_RUN = (
    f'exec python3 -m edgefleet_runtime run --root {STORE} --device "$IOTEDGE_DEVICEID" '
    f"--channel iotedge --uds {SOCKETS}/runtime.sock"
)
_SLUG = re.compile(r"[^a-z0-9-]+")


HIDDEN = "<given when it is published>"


class Grant(NamedTuple):
    """How a group's devices may read blobs.

    Attributes:
        content: what goes beside the pointer, such as ``{"read": "<query>", "expires": "…"}``.
        generation: rises whenever it is renewed.
    """

    content: Mapping[str, Any]
    generation: int

    def __repr__(self) -> str:
        return f"<access {self.generation}>"


def fleet_condition(prefix: str) -> str:
    """The target condition of all the fleet's devices."""
    return f"tags.edgefleet.fleet = '{prefix}'"


def group_condition(prefix: str, group: str) -> str:
    """The target condition of a group's devices."""
    return f"{fleet_condition(prefix)} AND tags.edgefleet.group = '{group}'"


def fleet_of(document: Mapping[str, Any]) -> str | None:
    """Prefix of the fleet that a configuration is a deployment of; None for those of others."""
    found = (document.get("labels") or {}).get(_FLEET)
    return None if found is None else str(found)


def is_ours(document: Mapping[str, Any], prefix: str) -> bool:
    """Whether a configuration is a deployment of the fleet."""
    return fleet_of(document) == prefix


def is_base(document: Mapping[str, Any], prefix: str) -> bool:
    """Whether a configuration is a base deployment of the fleet."""
    return is_ours(document, prefix) and _GROUP not in document["labels"]


def base(settings: AzureSettings) -> dict[str, Any]:
    """The configuration that has every device of a fleet run the runtime.

    Raises:
        ProfileError: the profile names no image of the runtime.
    """
    image = settings.needed("runtime_image", "the base deployment")
    options = {
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": [_RUN],
        "User": USER,
        "HostConfig": {
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": "rw,nosuid,nodev,noexec,size=64m"},  # noqa: S108 - the container's own
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Binds": [f"{STORE}:{STORE}", f"{SOCKETS}:{SOCKETS}"],
            "LogConfig": {"Type": "local", "Config": {"max-size": "10m", "max-file": "3"}},
        },
    }
    runtime = {
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": {"image": image, "createOptions": json.dumps(options)},
    }
    content = {
        "$edgeAgent": {
            "properties.desired": {
                "schemaVersion": AGENT_SCHEMA,
                "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25"}},
                "systemModules": _system_modules(),
                "modules": {MODULE: runtime},
            }
        },
        "$edgeHub": {
            "properties.desired": {
                "schemaVersion": HUB_SCHEMA,
                "routes": {
                    "edgefleetHot": {
                        "route": f"FROM /messages/modules/{MODULE}/outputs/{OUTPUT} INTO $upstream",
                        "priority": 0,
                        "timeToLiveSecs": HOT_TTL_S,
                    }
                },
                "storeAndForwardConfiguration": {"timeToLiveSecs": STORE_TTL_S},
            }
        },
    }
    return {
        # What a deployment holds can't be changed, so another content has another name.
        "id": f"edgefleet-{settings.prefix}-base-{_mark(content)}",
        "schemaVersion": "1.0",
        "labels": {_FLEET: settings.prefix},
        "content": {"modulesContent": check_schemas(content)},
        "targetCondition": fleet_condition(settings.prefix),
        "priority": BASE_PRIORITY,
        "metrics": {"queries": {}},
    }


def _system_modules() -> dict[str, Any]:
    hub_options = {
        "HostConfig": {
            "PortBindings": {
                "5671/tcp": [{"HostPort": "5671"}],
                "8883/tcp": [{"HostPort": "8883"}],
                "443/tcp": [{"HostPort": "443"}],
            }
        }
    }
    return {
        "edgeAgent": {
            "type": "docker",
            "settings": {"image": f"mcr.microsoft.com/azureiotedge-agent:{EDGE}"},
        },
        "edgeHub": {
            "type": "docker",
            "status": "running",
            "restartPolicy": "always",
            "startupOrder": 0,
            "settings": {
                "image": f"mcr.microsoft.com/azureiotedge-hub:{EDGE}",
                "createOptions": json.dumps(hub_options),
            },
        },
    }


def _mark(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def layer_id(prefix: str, group: str, pair: tuple[int, int], generation: int) -> str:
    """Name of a layer: the same for the same pointer and access, and taken by no other group."""
    mark = hashlib.sha256(f"{prefix}/{group}".encode()).hexdigest()[:10]
    slug = _SLUG.sub("-", group.lower())[:40]
    return f"edgefleet-{prefix[:40]}-{slug}-{mark}-{pair[0]}-{pair[1]}-{generation}"


def priority_of(pair: tuple[int, int]) -> int:
    """The priority of a pointer's layer.

    Raises:
        LimitExceededError: IoT Hub has no number so high.
    """
    epoch, number = pair
    found = FIRST_LAYER + epoch * _NUMBERS + number
    if number >= _NUMBERS or found >= 1 << 31:
        raise LimitExceededError(
            f"pointer {pair} is beyond what priorities of IoT Hub hold",
            cure="give the fleet a new identity, and enrol its devices anew",
        )
    return found


def layer(prefix: str, group: str, pointer: Pointer, grant: Grant | None) -> dict[str, Any]:
    """The configuration that brings a pointer to a group's devices.

    Args:
        prefix: of the fleet.
        group: its name.
        pointer: travels as one text, as it was written.
        grant: how devices may read blobs; None where they need no word of ours for that.

    Raises:
        LimitExceededError: no twin could hold it.
    """
    generation = 0 if grant is None else grant.generation
    name = layer_id(prefix, group, pointer.pair, generation)
    wanted: dict[str, Any] = {
        "pointer": pointer.encoded().decode(),
        "group": group,
        "layer": name,
    }
    if grant is not None:
        wanted["access"] = dict(grant.content)
    check({WANTED: wanted})
    check_size({WANTED: wanted}, MAX_PROPERTIES)
    return {
        "id": name,
        "schemaVersion": "1.0",
        "labels": {
            _FLEET: prefix,
            _GROUP: group,
            _PAIR: "{}-{}".format(*pointer.pair),
            _ACCESS: str(generation),
        },
        "content": {"modulesContent": {MODULE: {f"properties.desired.{WANTED}": wanted}}},
        "targetCondition": group_condition(prefix, group),
        "priority": priority_of(pointer.pair),
        "metrics": {"queries": metrics(group, pointer)},
    }


def metrics(group: str, pointer: Pointer) -> dict[str, str]:
    """What a layer has counted: devices by what their own reports say of its pointer.

    Of a group's devices only those are counted whose module twin holds the layer already.
    """
    told = f"{OF_MODULE} AND properties.desired.{WANTED}.group = '{group}'"
    summary = f"properties.reported.{WANTED}.summary"
    epoch = f"{summary}.epoch = {pointer.epoch}"
    if pointer.epoch == 0:  # a report leaves it out
        epoch = f"({epoch} OR NOT is_defined({summary}.epoch))"
    of_it = f"{epoch} AND {summary}.number = {pointer.number}"
    start = "SELECT deviceId FROM devices.modules WHERE "
    return {
        "told": start + told,
        "succeeded": f"{start}{told} AND {of_it} AND {summary}.state = 'active'",
        "rejected": f"{start}{told} AND {of_it} AND {summary}.state = 'rejected'",
        "waiting": f"{start}{told} AND {of_it} AND {summary}.state = 'waiting'",
    }


class Layer(NamedTuple):
    """A layer in place.

    Attributes:
        pair: of its pointer.
        generation: of its access.
        document: the configuration.
    """

    id: str
    group: str
    pair: tuple[int, int]
    generation: int
    document: Mapping[str, Any]

    @property
    def pointer(self) -> Pointer:
        """The pointer that it carries.

        Raises:
            DocumentError: somebody wrote there what is none.
        """
        modules = (self.document.get("content") or {}).get("modulesContent") or {}
        wanted = modules.get(MODULE, {}).get(f"properties.desired.{WANTED}", {})
        text = wanted.get("pointer") if isinstance(wanted, dict) else None
        if not isinstance(text, str):
            raise DocumentError(f"layer {self.id} carries no pointer")
        return read_pointer(text.encode())


def read_layer(document: Mapping[str, Any], prefix: str) -> Layer | None:
    """A configuration as a layer of the fleet; None for those of others."""
    labels = document.get("labels") or {}
    group, pair = labels.get(_GROUP), re.fullmatch(r"(\d+)-(\d+)", str(labels.get(_PAIR)))
    generation = str(labels.get(_ACCESS))
    if labels.get(_FLEET) != prefix or not group or pair is None or not generation.isdecimal():
        return None
    found = Layer(
        str(document["id"]), group, (int(pair[1]), int(pair[2])), int(generation), document
    )
    return found if found.id == layer_id(prefix, group, found.pair, found.generation) else None


def check_schemas(content: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's ``modulesContent``, if its schema versions are known.

    Raises:
        InvalidInputError: edgeAgent or edgeHub might read them in another way than was meant.
    """
    for module, known in (("$edgeAgent", AGENT_SCHEMAS), ("$edgeHub", HUB_SCHEMAS)):
        desired = (content.get(module) or {}).get("properties.desired")
        if desired is not None and desired.get("schemaVersion") not in known:
            raise InvalidInputError(
                f"{module} has schema version {desired.get('schemaVersion')!r}",
                cure=f"versions known here: {', '.join(sorted(known))}; upgrade edgefleet-azure",
            )
    return dict(content)


def encoded(document: Mapping[str, Any]) -> bytes:
    """A configuration as people read it, without what the hub adds to it, and without access."""
    ours = ("id", "schemaVersion", "labels", "content", "targetCondition", "priority")
    found = copy.deepcopy({key: document.get(key) for key in ours})
    modules = (found["content"] or {}).get("modulesContent") or {}
    access = (modules.get(MODULE) or {}).get(f"properties.desired.{WANTED}", {}).get("access", {})
    if "read" in access:
        access["read"] = HIDDEN
    queries = (document.get("metrics") or {}).get("queries") or {}
    shown = {**found, "metrics": {"queries": queries}}
    return json.dumps(shown, indent=2, sort_keys=True).encode() + b"\n"
