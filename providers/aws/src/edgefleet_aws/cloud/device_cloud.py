"""What core devices reach with their certificates: deployments, topics, shadows, keys of a role.

Rules kept here, each in ``mock_rules.md``:

- What a device may publish and receive is what the IoT policies of its groups say, and what its
  keys may do in S3 is what the policies of the role behind its role alias say; both are read anew
  each time, from where ``install`` put them.
- Messages have at most 128 KB, topics at most seven slashes; shadows 8 KB.
- Topic rules with an S3 action are carried out.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import re
import secrets
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from moto.iam.models import iam_backends
from moto.iot.models import iot_backends
from moto.iotdata.models import iotdata_backends
from moto.logs.models import logs_backends

from edgefleet.errors import (
    AccessDeniedError,
    InvalidInputError,
    LimitExceededError,
    UnavailableError,
)
from edgefleet_aws.cloud.core_device import CoreFacts
from edgefleet_aws.cloud.limits import refused_shadow
from edgefleet_aws.cloud.packages import ACCOUNT
from edgefleet_aws.cloud.policies import allows
from edgefleet_aws.cloud.topics import matches, too_deep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet_aws.cloud.components import Component, Components
    from edgefleet_aws.cloud.deployments import Deployment, Deployments

    Cancel = Callable[[], None]
    Received = Callable[[str, bytes], None]

_log = logging.getLogger(__name__)

MAX_MESSAGE = 128 << 10  # bytes; AWS IoT Core endpoints and quotas, message broker
KEYS_S = 3600.0  # a role alias's default
_SHADOW = re.compile(r"\$aws/things/(?P<thing>[^/]+)/shadow/name/(?P<name>[^/]+)/update")
_BASIC_INGEST = re.compile(r"\$aws/rules/(?P<rule>[^/]+)/(?P<topic>.+)")
_FUNCTION = re.compile(r"\$\{(\w+)\((\d*)\)\}")


class Known(NamedTuple):
    """A core device as the cloud knows it."""

    facts: CoreFacts
    heard: dt.datetime


class DeviceCloud:
    """The device's side of the mock cloud; see `edgefleet_aws.cloud.core_device.Cloud`.

    Args:
        region: of everything.
        components: that devices install.
        deployments: that they carry out.
        fetch: the bytes at an ``s3://`` address.
        put: writes bytes to a bucket under a key, for topic rules.
        clock: gives the time.
    """

    def __init__(
        self,
        region: str,
        *,
        components: Components,
        deployments: Deployments,
        fetch: Callable[[str], bytes | None],
        put: Callable[[str, str, bytes], None],
        clock: Callable[[], dt.datetime],
    ) -> None:
        self.region = region
        self._components = components
        self._deployments = deployments
        self._fetch, self._put = fetch, put
        self._clock = clock
        self._lock = threading.Lock()
        self._receivers: list[tuple[str, Received]] = []
        self._keys: dict[str, tuple[str, dt.datetime]] = {}
        self.role_alias = ""
        """The role behind this alias bounds what devices' keys may do."""
        self.own_aliases: dict[str, str] = {}
        """The role aliases of things whose nucleus was set up with another."""
        self.expired: set[str] = set()
        """Things whose keys have ended, and whose token exchange gives them no newer ones."""
        self.offline: set[str] = set()
        """Things without a network."""
        self.devices: dict[str, Known] = {}

    def clear(self) -> None:
        """Forget every device."""
        with self._lock:
            self._receivers.clear()
            self._keys.clear()
        self.expired.clear()
        self.own_aliases.clear()
        self.offline.clear()
        self.devices.clear()

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """The role aliases, and what each device last said of itself."""
        return {
            "role_alias": self.role_alias,
            "own_aliases": self.own_aliases,
            "devices": {
                thing: [known.facts._asdict(), known.heard.isoformat()]
                for thing, known in self.devices.items()
            },
        }

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Know these devices, also those that stay without power."""
        self.role_alias, self.own_aliases = kept["role_alias"], kept["own_aliases"]
        for thing, (facts, heard) in kept["devices"].items():
            components = {name: tuple(one) for name, one in facts["components"].items()}
            told = CoreFacts(**{**facts, "components": components})
            self.devices[thing] = Known(told, dt.datetime.fromisoformat(heard))

    def online(self, thing: str) -> bool:
        return thing not in self.offline

    # -- deployments

    def wanted(self, thing: str) -> list[Deployment]:
        return self._deployments.wanted(thing)

    def report(self, thing: str, deployment: Deployment, status: str, reason: str = "") -> None:
        self._deployments.report(thing, deployment, status, reason)

    def component(self, name: str, version: str) -> Component | None:
        return self._components.get(name, version)

    def artifact(self, address: str) -> bytes | None:
        return self._fetch(address)

    def is_up(self, thing: str, facts: CoreFacts) -> None:
        self.devices[thing] = Known(facts, self._clock())

    # -- messages

    def publish(self, thing: str, topic: str, payload: bytes) -> None:
        if len(payload) > MAX_MESSAGE:
            raise LimitExceededError(f"a message has {len(payload)} bytes, 128 KB are allowed")
        if too_deep(topic):
            raise InvalidInputError(f"topic {topic!r} has too many slashes")
        self._reach(thing)
        self._check(thing, "iot:Publish", f"topic/{topic}")
        self.deliver(topic, payload)

    def _reach(self, thing: str) -> None:
        if not self.online(thing):
            raise UnavailableError(f"{thing} has no network")

    def deliver(self, topic: str, payload: bytes) -> None:
        """Hand a message on: to a shadow, to rules, to those who subscribed."""
        shadow = _SHADOW.fullmatch(topic)
        if shadow is not None:
            self._update_shadow(shadow["thing"], shadow["name"], payload)
            return
        ingest = _BASIC_INGEST.fullmatch(topic)
        for name, rule in iot_backends[ACCOUNT][self.region].rules.items():
            meant = ingest["rule"] == name if ingest else matches(topic, _filter_of(rule.sql))
            if meant and not rule.rule_disabled:
                self._carry_out(rule, ingest["topic"] if ingest else topic, payload)
        if ingest is None:
            with self._lock:
                receivers = [one for wanted, one in self._receivers if matches(topic, wanted)]
            for received in receivers:
                received(topic, payload)

    def listens(self, topic: str) -> bool:
        """Whether somebody subscribed to a topic: what is sent before is heard by nobody."""
        with self._lock:
            return any(matches(topic, wanted) for wanted, _ in self._receivers)

    def subscribe(self, thing: str, topic_filter: str, received: Received) -> Cancel:
        self._check(thing, "iot:Subscribe", f"topicfilter/{topic_filter}")
        entry = (topic_filter, received)
        with self._lock:
            self._receivers.append(entry)

        def cancel() -> None:
            with self._lock:
                if entry in self._receivers:
                    self._receivers.remove(entry)

        return cancel

    def _update_shadow(self, thing: str, name: str, payload: bytes) -> None:
        """Take an update in; what makes no sense goes to ``/rejected``, which nobody here hears."""
        try:
            content = json.loads(payload)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            _log.info("an update of shadow %s of %s is rejected: it is no object", name, thing)
            return
        refused = refused_shadow(content)
        if refused is not None:
            raise LimitExceededError(f"shadow {name} of {thing}: {refused.message}")
        iotdata_backends[ACCOUNT][self.region].update_thing_shadow(
            thing_name=thing, payload=payload.decode(), shadow_name=name
        )

    def _carry_out(self, rule: Any, topic: str, payload: bytes) -> None:  # noqa: ANN401 - moto's
        for action in rule.actions:
            s3 = action.get("s3")
            if s3 is not None:
                key = _FUNCTION.sub(lambda found: self._function(found, topic), s3["key"])
                try:
                    self._put(s3["bucketName"], key, payload)
                except Exception as error:  # noqa: BLE001 - whatever S3 refuses with
                    self._tell(rule, topic, payload, error)

    def _tell(self, rule: Any, topic: str, payload: bytes, error: Exception) -> None:  # noqa: ANN401
        """Carry out a rule's error action.

        https://docs.aws.amazon.com/iot/latest/developerguide/rule-error-handling.html
        """
        wanted = (rule.error_action or {}).get("cloudwatchLogs")
        if wanted is None:
            return
        said = {
            "ruleName": rule.rule_name,
            "topic": topic,
            "base64OriginalPayload": base64.b64encode(payload).decode(),
            "failures": [{"failedAction": "S3Action", "errorMessage": str(error)}],
        }
        now = self._clock()
        logs = logs_backends[ACCOUNT][self.region]
        group, stream = wanted["logGroupName"], f"{now:%Y/%m/%d}/{secrets.token_hex(8)}"
        logs.create_log_stream(group, stream)
        entry = {"timestamp": round(now.timestamp() * 1000), "message": json.dumps(said)}
        logs.put_log_events(group, stream, [entry])

    def _function(self, found: re.Match[str], topic: str) -> str:
        """The value of a substitution template.

        https://docs.aws.amazon.com/iot/latest/developerguide/iot-substitution-templates.html
        """
        name, argument = found[1], found[2]
        if name == "topic":
            return topic if not argument else topic.split("/")[int(argument) - 1]
        if name == "timestamp":
            return str(round(self._clock().timestamp() * 1000))
        if name == "newuuid":
            return secrets.token_hex(16)
        raise NotImplementedError(f"the mock's topic rules don't know {name}()")

    def _check(self, thing: str, action: str, resource: str) -> None:
        arn = f"arn:aws:iot:{self.region}:{ACCOUNT}:{resource}"
        variables = {"iot:Connection.Thing.ThingName": thing, "iot:ClientId": thing}
        if not allows(self._iot_policies(thing), action, arn, variables):
            raise AccessDeniedError(f"{thing} may not do {action} on {resource}")

    def _iot_policies(self, thing: str) -> list[Mapping[str, Any]]:
        backend = iot_backends[ACCOUNT][self.region]
        groups = backend.list_thing_groups_for_thing(thing)
        targets = [group["groupArn"] for group in groups]
        targets += backend.list_thing_principals(thing)  # its certificates
        return [
            _document(policy.document)
            for target in targets
            for policy in backend.list_attached_policies(target)
        ]

    # -- keys

    def keys(self, thing: str) -> Mapping[str, str]:
        self._reach(thing)
        if self.role_alias not in iot_backends[ACCOUNT][self.region].role_aliases:
            raise AccessDeniedError(f"there is no role alias {self.role_alias!r}")
        until = self._clock() + dt.timedelta(seconds=-1.0 if thing in self.expired else KEYS_S)
        key = "ASIA" + secrets.token_hex(8).upper()
        with self._lock:
            self._keys[key] = (thing, until)
        return {
            "AccessKeyId": key,
            "SecretAccessKey": secrets.token_hex(20),
            "Token": secrets.token_hex(40),
            "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def forget_keys(self, thing: str) -> None:
        """Let the keys that a device holds end now; it can get others."""
        past = self._clock() - dt.timedelta(seconds=1)
        with self._lock:
            for key, (owner, _) in self._keys.items():
                if owner == thing:
                    self._keys[key] = (owner, past)

    def thing_of(self, key: str) -> tuple[str, bool] | None:
        """The device that a key was given to, and whether it still holds; None for other keys."""
        with self._lock:
            found = self._keys.get(key)
        if found is None:
            return None
        thing, until = found
        return thing, self._clock() < until and thing not in self.expired

    def may(self, thing: str, action: str, resource: str) -> bool:
        """Whether the role behind a device's role alias lets it do something."""
        alias = iot_backends[ACCOUNT][self.region].role_aliases.get(
            self.own_aliases.get(thing, self.role_alias)
        )
        if alias is None:
            return False
        iam = iam_backends[ACCOUNT]["aws"]
        role = iam.get_role(alias.role_arn.rpartition("/")[2])
        documents = [json.loads(text) for text in role.policies.values()]
        for managed in role.managed_policies.values():
            newest = next(one for one in managed.versions if one.is_default)
            documents.append(_document(newest.document))
        return allows(documents, action, resource, {"credentials-iot:ThingName": thing})


def _document(text: Any) -> Mapping[str, Any]:  # noqa: ANN401 - moto keeps what it was sent
    found: Mapping[str, Any] = json.loads(text) if isinstance(text, str) else text
    return found


def _filter_of(sql: str) -> str:
    found = re.search(r"from\s+'([^']+)'", sql, re.IGNORECASE)
    return found[1] if found else ""
