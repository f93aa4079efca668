"""What moto holds of buckets, things and logs, taken out and put back: moto itself keeps nothing.

What these leave out (certificates, thing types, jobs of IoT, older versions and tags of objects,
uploads that nobody has completed) is named in ``mock_rules.md``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Any

from moto.iot.models import iot_backends
from moto.iotdata.models import FakeShadow
from moto.logs.models import logs_backends
from moto.s3.models import s3_backends

from edgefleet.protocol.files import write_whole
from edgefleet_aws.cloud.packages import ACCOUNT

if TYPE_CHECKING:
    from pathlib import Path

_CHECKSUMS = ("checksum_algorithm", "checksum_value", "checksum_type", "checksum_parts")
_SHADOW = ("desired", "reported", "requested_payload", "version", "deleted")
_TIMES = ("timestamp", "metadata_desired", "metadata_reported")


class Buckets:
    """S3's buckets and their objects; objects' bytes are files named by digest.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._backend = s3_backends[ACCOUNT]["aws"]
        # moto has one S3 a process: what another mock in it has is none of ours.
        self._others = frozenset(self._backend.buckets)

    @property
    def _names(self) -> list[str]:
        return [name for name in tuple(self._backend.buckets) if name not in self._others]

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """Buckets with region and policy, objects with what a reader is told of them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for name in self._names:
            bucket = self._backend.buckets[name]
            found[name] = {
                "region": bucket.region_name,
                "policy": None if bucket.policy is None else bucket.policy.decode(),
                "objects": [self._object(key) for key in tuple(bucket.keys.values())],
            }
        return found

    def _object(self, key: Any) -> dict[str, Any]:  # noqa: ANN401 - moto's
        data = bytes(key.value)
        digest = hashlib.sha256(data).hexdigest()
        if not (self._folder / digest).exists():
            write_whole(self._folder / digest, data)
        return {
            "name": key.name,
            "digest": digest,
            "etag": key.etag.strip('"'),
            "metadata": dict(key.metadata),
            "modified": key.last_modified.isoformat(),
            **{one: getattr(key, one) for one in _CHECKSUMS},
        }

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Make buckets that are missing and put objects back; files of none are removed."""
        used = set()
        for name, told in kept.items():
            if name not in self._backend.buckets:
                self._backend.create_bucket(name, told["region"])
            if told["policy"] is not None:
                self._backend.put_bucket_policy(name, told["policy"].encode())
            for one in told["objects"]:
                used.add(one["digest"])
                data = (self._folder / one["digest"]).read_bytes()
                key = self._backend.put_object(name, one["name"], data, etag=one["etag"])
                key.set_metadata(dict(one["metadata"]), replace=True)
                key.last_modified = dt.datetime.fromisoformat(one["modified"])
                for attribute in _CHECKSUMS:
                    setattr(key, attribute, one[attribute])
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name not in used:
                path.unlink()

    def clear(self) -> None:
        """Remove every bucket with what is in it."""
        for name in self._names:
            self._backend.buckets[name].keys.clear()
            self._backend.delete_bucket(name)


class Things:
    """IoT Core's things, groups, memberships, policies and shadows.

    Args:
        region: of them.
    """

    def __init__(self, region: str) -> None:
        self._backend = iot_backends[ACCOUNT][region]

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """Groups before their members, policies before what they are attached to."""
        attached = self._backend.principal_policies
        return {
            "groups": [_group(one) for one in self._backend.thing_groups.values()],
            "things": [_thing(one) for one in self._backend.things.values()],
            "policies": {name: one.document for name, one in self._backend.policies.items()},
            "attached": [list(pair) for pair in attached if ":thinggroup/" in pair[0]],
        }

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Put them back, beside what is there."""
        backend = self._backend
        for told in kept["groups"]:
            _, arn, _ = backend.create_thing_group(told["name"], told["parent"], told["properties"])
            backend.thing_groups[arn].thing_group_id = told["id"]
            backend.thing_groups[arn].version = told["version"]
        for told in kept["things"]:
            thing = backend.create_thing(told["name"], "", {"attributes": told["attributes"]})
            thing.thing_id, thing.version = told["id"], told["version"]
            thing.thing_shadows = {name: _shadow(one) for name, one in told["shadows"]}
        for told in kept["groups"]:
            for name in told["members"]:
                backend.add_thing_to_thing_group(told["name"], None, name, None)
        for name, document in kept["policies"].items():
            if name not in backend.policies:
                backend.create_policy(name, document)
        for target, policy in kept["attached"]:
            backend.attach_policy(policy, target)


def _group(group: Any) -> dict[str, Any]:  # noqa: ANN401 - moto's
    return {
        "name": group.thing_group_name,
        "parent": group.parent_group_name,
        "properties": group.thing_group_properties,
        "id": group.thing_group_id,
        "version": group.version,
        "members": [thing.thing_name for thing in tuple(group.things.values())],
    }


def _thing(thing: Any) -> dict[str, Any]:  # noqa: ANN401 - moto's
    shadows = thing.thing_shadows.items()
    return {
        "name": thing.thing_name,
        "attributes": thing.attributes,
        "id": thing.thing_id,
        "version": thing.version,
        "shadows": [
            [name, {key: getattr(one, key) for key in (*_SHADOW, *_TIMES)}]
            for name, one in tuple(shadows)
        ],
    }


def _shadow(told: dict[str, Any]) -> FakeShadow:
    shadow = FakeShadow(**{key: told[key] for key in _SHADOW})
    for key in _TIMES:
        setattr(shadow, key, told[key])
    return shadow


class Logs:
    """CloudWatch's log groups, streams and events.

    Args:
        region: of them.
    """

    def __init__(self, region: str) -> None:
        self._backend = logs_backends[ACCOUNT][region]
        self._others = frozenset(self._backend.groups)

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """Group -> stream -> times and messages."""
        return {
            name: {
                stream: [[event.timestamp, event.message] for event in one.events]
                for stream, one in group.streams.items()
            }
            for name, group in self._backend.groups.items()
            if name not in self._others
        }

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Put them back; events older than CloudWatch takes are dropped by it."""
        for name, streams in kept.items():
            if name not in self._backend.groups:
                self._backend.create_log_group(name, {})
            for stream, events in streams.items():
                if stream in self._backend.groups[name].streams:
                    continue
                self._backend.create_log_stream(name, stream)
                told = [{"timestamp": when, "message": text} for when, text in events]
                self._backend.put_log_events(name, stream, told)

    def clear(self) -> None:
        """Remove every group."""
        for name in [name for name in self._backend.groups if name not in self._others]:
            self._backend.delete_log_group(name)
