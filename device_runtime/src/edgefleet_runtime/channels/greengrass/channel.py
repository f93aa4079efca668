"""The Greengrass channel: pointers from a component's configuration, reports into a named shadow.

Rules kept here:

- The pointer is read from `settings.COMPONENT`, which carries nothing else. Changes are told by a
  subscription, which a nucleus may lose when it takes a revision; so it is read again at the start,
  when the connection comes back, and every `READ_AGAIN_S`.
- The report is the whole of the shadow's ``reported.report``, in a list of one: a shadow merges
  objects field by field, and lists as wholes
  (https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-document.html). Beside it lie
  the few fields that fleet indexing can search.
- Segments and blobs go to and from S3 with the role's keys from token exchange. What the role may
  write is its policy's affair: only below ``devices/<thing>/``.
- Operators' requests come on the device's topic ``…/invoke``; answers are objects in S3.
- A nucleus that is away, and keys that ended, lose nothing: the runtime repeats.
- An update that would restart the runtime waits as `restarts` says.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import urlsplit

import msgspec

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    DocumentError,
    EdgeFleetError,
    UnavailableError,
)
from edgefleet.protocol.names import check_name, check_path
from edgefleet.protocol.report import SUMMARY, AccessReport
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_runtime.channels.again import ReadAgain
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.channels.greengrass.credentials import TokenExchange
from edgefleet_runtime.channels.greengrass.invoke import Invoker
from edgefleet_runtime.channels.greengrass.ipc import Nucleus
from edgefleet_runtime.channels.greengrass.restarts import STEP_S, Restarts
from edgefleet_runtime.channels.greengrass.s3 import Bucket
from edgefleet_runtime.channels.greengrass.settings import (
    COMPONENT,
    SHADOW,
    Settings,
    read_settings,
)
from edgefleet_runtime.channels.messages import packed
from edgefleet_runtime.store.bandwidth import open_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.requests import Reply, Request
    from edgefleet_runtime.store.sources import Source

_log = logging.getLogger(__name__)

READ_AGAIN_S = 60.0
ARTIFACTS = "artifacts"  # the only option
THING_VARIABLE = "AWS_IOT_THING_NAME"
MAX_MESSAGE = 128 << 10  # bytes of an MQTT message that IoT Core takes
# https://aws.amazon.com/iot-core/pricing/additional-details/: payload and topic, by 5 KB
UNIT_BYTES = 5 << 10


class GreengrassChannel(Channel):
    """One device's connection to AWS through its Greengrass nucleus.

    Args:
        device: the thing's name.
        artifacts: folder of the component's artifacts, this version's; None where it has none.
        read_again_s: seconds after which the configuration is read without being told.
        put_off_s: seconds for which a restart is put off at once.
    """

    options = {  # noqa: RUF012 - a ClassVar in the base
        ARTIFACTS: "folder of this version's artifacts, which tells when a newer one comes"
    }
    hot_max_bytes = MAX_MESSAGE
    hot_unit_bytes = UNIT_BYTES
    hot_overhead_bytes = 512  # a topic has up to 256 bytes

    def __init__(
        self,
        device: str,
        *,
        artifacts: Path | None = None,
        read_again_s: float = READ_AGAIN_S,
        put_off_s: float = STEP_S,
    ) -> None:
        self._device = check_name("device", device)
        self._artifacts = artifacts
        self._put_off_s = put_off_s
        self._again = ReadAgain(read_again_s)
        self._lock = threading.Lock()
        self._watching = False
        self._settings = Settings()
        self._invoker: Invoker | None = None
        self._listening = False
        self._restarts: Restarts | None = None
        self._announced = False
        self._exchange = TokenExchange.from_environment()
        self._nucleus = Nucleus.from_environment(lost=self._lost)

    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        unknown = sorted(options.keys() - cls.options.keys())
        if unknown:
            raise ConfigurationError(
                f"channel greengrass: unknown options {unknown}",
                cure=f"give it {ARTIFACTS} only: all else comes from nucleus and deployment",
            )
        thing = os.environ.get(THING_VARIABLE, device)
        if thing != device:
            raise ConfigurationError(
                f"the device is called {device!r} and its thing {thing!r}",
                cure=f"start the runtime with --device {thing}",
            )
        artifacts = options.get(ARTIFACTS)
        return cls(device, artifacts=None if artifacts is None else Path(artifacts))

    # -- coming

    def pointer(self) -> bytes | None:
        settings = self._current()
        return settings.pointer.encode() or None

    def access(self) -> AccessReport:
        """Whether token exchange gives keys."""
        try:
            self._exchange.keys()
        except AccessExpiredError as error:
            return AccessReport(state="expired", detail=error.message)
        except AccessDeniedError as error:
            return AccessReport(state="denied", detail=error.message)
        except EdgeFleetError as error:
            return AccessReport(state="unknown", detail=error.message)
        return AccessReport(state="ok")

    def wait(self, timeout_s: float) -> bool:
        return self._again.wait(timeout_s)

    def wake(self) -> None:
        self._again.wake()

    def _lost(self) -> None:
        """The connection or the subscription ended: read and subscribe again."""
        with self._lock:
            self._watching = self._listening = self._announced = False
        self._again.wake()

    def _current(self) -> Settings:
        """The configuration, read now and watched from before it was read."""
        with self._again.reading():
            self._read()
        return self._settings

    def _read(self) -> None:
        with self._lock:
            watching, self._watching = self._watching, True
        if not watching:
            try:
                watching = self._nucleus.watch(COMPONENT, self._again.wake)
            finally:
                if not watching:
                    with self._lock:
                        self._watching = False
        configuration = self._nucleus.configuration(COMPONENT)
        if configuration is not None:
            self._settings = read_settings(configuration)
        self._listen()
        self._hear_of_updates()

    def _listen(self) -> None:
        """Hear operators' requests; without them the device does all else."""
        prefix = self._settings.prefix
        if self._invoker is None or not prefix:
            return
        with self._lock:
            listening, self._listening = self._listening, True
        if listening:
            return
        try:
            topic = f"{prefix}/devices/{self._device}/invoke"
            self._nucleus.subscribe(topic, self._invoker.received)
        except EdgeFleetError as error:
            with self._lock:
                self._listening = False
            _log.info("operators' requests can't come: %s", error.message)

    def delay_restarts(self, busy: Callable[[], bool]) -> None:
        self._restarts = Restarts(busy, self._artifacts, step_s=self._put_off_s)
        self._again.wake()

    def _hear_of_updates(self) -> None:
        """Subscribe to what restarts the runtime; a nucleus that tells nothing just restarts it."""
        restarts = self._restarts
        with self._lock:
            if restarts is None or self._announced:
                return
            self._announced = True

        def announced(deployment: str, nucleus_restarts: bool) -> None:  # noqa: FBT001 - as it comes
            wait_s = restarts.wait_s(deployment, nucleus_restarts=nucleus_restarts)
            # In a thread of its own: this one is the connection's, and must not wait for it.
            answer = threading.Thread(target=self._put_off, args=(deployment, wait_s), daemon=True)
            answer.start()

        try:
            if not self._nucleus.announce_updates(announced):
                _log.info("this nucleus doesn't ask before it restarts the runtime")
        except EdgeFleetError as error:
            with self._lock:
                self._announced = False
            _log.info("updates can't be put off: %s", error.message)

    def _put_off(self, deployment: str, wait_s: float) -> None:
        if wait_s:
            _log.info("a restart waits %.0f s for what is under way", wait_s)
        try:
            self._nucleus.put_off(deployment, wait_s)
        except EdgeFleetError as error:
            _log.info("the nucleus didn't hear when it may update: %s", error.message)

    def serve(self, ask: Callable[[Request], Reply]) -> None:
        self._invoker = Invoker(ask, self._put)  # an operator waits for the answer
        self._again.wake()

    # -- going

    def send_report(self, report: bytes) -> None:
        topic = f"$aws/things/{self._device}/shadow/name/{SHADOW}/update"
        self._nucleus.publish(topic, shadow_update(report))

    def send_hot(self, events: Sequence[Event]) -> None:
        topic = self._known().hot_topic.replace("{thing}", self._device)
        if not topic:
            raise UnavailableError("the deployment names no topic for alarms and health events")
        for payload in packed(events, MAX_MESSAGE):
            self._nucleus.publish(topic, payload)

    def upload(self, name: str, path: Path) -> None:
        self._put(name, path, self.opened)

    def _put(self, name: str, path: Path, opened: Callable[[Path], BinaryIO] = open_plain) -> None:
        below = check_path(name, what="segment name")
        settings = self._known()
        key = f"{settings.prefix}/devices/{self._device}/{below}"
        self._bucket(settings).put(key, path, opened)

    def source(self, address: str) -> Source | None:
        parts = urlsplit(address)
        settings = self._known()
        if parts.scheme != "s3" or parts.netloc != settings.bucket:
            return None
        return self._bucket(settings).source(address)

    def _known(self) -> Settings:
        return self._settings if self._settings.bucket else self._current()

    def _bucket(self, settings: Settings) -> Bucket:
        if not (settings.bucket and settings.region):
            raise UnavailableError(f"{COMPONENT} isn't deployed here, or names no bucket")
        # AWS's own tools look for an address in the same places.
        of_environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        endpoint = settings.endpoint or of_environment or None
        return Bucket(settings.bucket, settings.region, self._exchange, endpoint=endpoint)

    def close(self) -> None:
        self.wake()
        if self._invoker is not None:
            self._invoker.close()
        self._nucleus.close()


def shadow_update(report: bytes) -> bytes:
    """The update of a shadow that replaces the report in it, whatever was there.

    Raises:
        DocumentError: the report is no JSON object.
    """
    try:
        content: dict[str, Any] = decoder(dict).decode(report)
    except UNREADABLE as error:
        raise DocumentError(f"a report that makes no sense isn't sent: {error}") from error
    indexed = {key: content.get(key) for key in SUMMARY}
    reported = {**indexed, "report": [msgspec.Raw(report)]}
    return msgspec.json.encode({"state": {"reported": reported}})
