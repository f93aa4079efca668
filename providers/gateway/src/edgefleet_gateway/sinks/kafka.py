"""CloudEvents in Kafka: a record each, whose key is the device, so that its events stay in order.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md

The producer is idempotent while all goes well: no record twice, none before an earlier one. After
any trouble it is given up with what it still held, which the outbox has.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import AccessDeniedError, EdgeFleetError, MissingExtraError, UnavailableError
from edgefleet.protocol.event import read_event
from edgefleet_gateway.sinks.base import Outcome, Sink, read_login

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet_gateway.sinks.base import Waiting
    from edgefleet_gateway.sinks.settings import KafkaSettings

STRUCTURED = b"application/cloudevents+json; charset=UTF-8"
BATCH = 500
_log = logging.getLogger(__name__)


def library() -> Any:  # noqa: ANN401 - it has no types
    """confluent-kafka.

    Raises:
        MissingExtraError: it isn't installed.
    """
    try:
        import confluent_kafka  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError(
            "a sink in Kafka needs confluent-kafka",
            cure="install it with: pip install 'edgefleet-gateway[kafka]'",
        ) from error
    return confluent_kafka


class KafkaSink(Sink):
    """Produces records.

    Args:
        settings: brokers and topic; paths in it are absolute.

    Raises:
        MissingExtraError: confluent-kafka isn't installed.
    """

    batch = BATCH

    def __init__(self, settings: KafkaSettings) -> None:
        self._kafka = library()
        self._settings = settings
        self._producer: Any = None
        self._where = f"Kafka at {settings.brokers[0]}"
        errors = self._kafka.KafkaError
        self._never = {errors.MSG_SIZE_TOO_LARGE, errors.INVALID_MSG, errors.INVALID_RECORD}
        self._denied = {
            errors._AUTHENTICATION,  # noqa: SLF001 - librdkafka's own codes begin so
            errors.SASL_AUTHENTICATION_FAILED,
            errors.TOPIC_AUTHORIZATION_FAILED,
            errors.CLUSTER_AUTHORIZATION_FAILED,
        }

    def send(self, events: Sequence[Waiting]) -> Outcome:
        taken: set[int] = set()
        refused: dict[int, str] = {}
        errors: list[Any] = []

        def told(number: int) -> Callable[[Any, Any], None]:
            def note(error: Any, _: Any) -> None:  # noqa: ANN401 - confluent-kafka's
                if error is None:
                    taken.add(number)
                elif error.code() in self._never:
                    refused[number] = str(error.str())
                else:
                    errors.append(error)

            return note

        try:
            producer = self._made()
            for event in events:
                self._produce(producer, event, told(event.number))
            producer.flush(self._settings.timeout_s)
        except EdgeFleetError as error:
            self.close()
            return Outcome(frozenset(taken), refused, error)
        except self._kafka.KafkaException as error:
            errors.append(error.args[0])
        if len(taken) + len(refused) == len(events):
            return Outcome(frozenset(taken), refused)
        self.close()
        return Outcome(frozenset(taken), refused, self._meaning(errors))

    def _produce(
        self,
        producer: Any,  # noqa: ANN401 - confluent-kafka's
        event: Waiting,
        told: Callable[[Any, Any], None],
    ) -> None:
        value, headers = _record(event.data, binary=self._settings.mode == "binary")
        try:
            producer.produce(
                event.topic(self._settings.topic),
                value,
                key=event.device.encode(),
                headers=headers,
                on_delivery=told,
            )
        except self._kafka.KafkaException as error:
            if error.args[0].code() not in self._never:
                raise
            told(error.args[0], None)

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(self._kafka.KafkaException):
                producer.purge()
                producer.flush(0)

    def _meaning(self, errors: list[Any]) -> EdgeFleetError:
        codes = {error.code() for error in errors}
        said = str(errors[0].str()) if errors else "no acknowledgement in time"
        if codes & self._denied:
            return AccessDeniedError(
                f"{self._where} refuses this gateway: {said}",
                cure="renew the login of the sink, or let it write to the topic",
            )
        return UnavailableError(f"{self._where}: {said}")

    def _made(self) -> Any:  # noqa: ANN401 - likewise
        if self._producer is None:
            self._producer = self._kafka.Producer(self._config(), logger=_log)
        return self._producer

    def _config(self) -> dict[str, Any]:
        settings = self._settings
        config: dict[str, Any] = {
            "bootstrap.servers": ",".join(settings.brokers),
            "client.id": "edgefleet-gateway",
            "enable.idempotence": True,  # with it: acks=all, retries in order
            "message.timeout.ms": max(1, int(settings.timeout_s * 1000)),
            "linger.ms": 5,
            "compression.type": "zstd",
        }
        named = {
            "ssl.ca.location": settings.ca,
            "ssl.certificate.location": settings.certificate,
            "ssl.key.location": settings.key,
        }
        config |= {name: str(path) for name, path in named.items() if path is not None}
        kind = "ssl" if settings.tls else "plaintext"
        if settings.login is not None:
            user, password = read_login(settings.login)
            kind = f"sasl_{kind}"
            config |= {
                "sasl.mechanism": settings.mechanism,
                "sasl.username": user,
                "sasl.password": password,
            }
        return {**config, "security.protocol": kind}


def _record(data: bytes, *, binary: bool) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Value and headers of an event's record."""
    if not binary:
        return data, [("content-type", STRUCTURED)]
    event = read_event(data)
    named = {
        "content-type": event.datacontenttype,
        "ce_specversion": event.specversion,
        "ce_id": event.id,
        "ce_source": event.source,
        "ce_type": event.type,
        "ce_time": msgspec.to_builtins(event.time),
        "ce_subject": event.subject,
    }
    headers = [(name, value.encode()) for name, value in named.items() if value is not None]
    return bytes(event.data), headers
