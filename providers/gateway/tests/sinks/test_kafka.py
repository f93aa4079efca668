"""Events in Kafka, on librdkafka's own mock cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import confluent_kafka
import msgspec
import pytest

from edgefleet.interfaces.retrying import Pauses
from edgefleet.protocol.event import Alarm, new_event, read_event
from edgefleet.testing.kit import samples
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.sinks.kafka import KafkaSink
from edgefleet_gateway.sinks.running import Forwarding, SinkFigures
from edgefleet_gateway.sinks.settings import KafkaSettings

SOON = Pauses(first_s=0.01, most_s=0.02, longest_told_s=0.5)
Make = Callable[..., Forwarding]


@pytest.fixture
def cluster() -> Iterator[str]:
    """Address of a cluster of one broker."""
    config = {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0}
    holder: Any = confluent_kafka.Producer(config)
    (broker,) = holder.list_topics(timeout=30).brokers.values()
    yield f"{broker.host}:{broker.port}"
    holder.flush(0)


@pytest.fixture
def forward(cluster: str, tmp_path: Path) -> Iterator[Make]:
    made: list[Forwarding] = []

    def make(**settings: Any) -> Forwarding:
        given = {"kind": "kafka", "name": "lake", "brokers": [cluster], "tls": False, **settings}
        one = KafkaSettings.model_validate(given)
        made.append(Forwarding([one], tmp_path, base=tmp_path, pauses=SOON))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def records(cluster: str) -> Iterator[Callable[[str, int], list[Any]]]:
    """Gives the records of a topic, once there are so many."""
    made: list[Any] = []

    def read(topic: str, count: int) -> list[Any]:
        config = {
            "bootstrap.servers": cluster,
            "group.id": "test",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        consumer: Any = confluent_kafka.Consumer(config)
        made.append(consumer)
        parts = eventually(  # the first to ask for a topic has it made
            lambda: consumer.list_topics(topic, timeout=30).topics[topic].partitions
        )
        consumer.assign([confluent_kafka.TopicPartition(topic, part, 0) for part in parts])
        found: list[Any] = []

        def enough() -> bool:
            came = consumer.consume(100, 0.05)
            found.extend(record for record in came if record.error() is None)
            return len(found) >= count

        eventually(enough, lambda: f"{len(found)} of {count} records")
        return found

    yield read
    for consumer in made:
        consumer.close()


def figures(forwarding: Forwarding) -> SinkFigures:
    (one,) = forwarding.figures()
    return one


def test_an_event_is_a_record_in_binary_mode(
    forward: Make, records: Callable[[str, int], list[Any]]
) -> None:
    sent = samples.alarm(1)
    forward().take("cam-1", [sent])
    (record,) = records("edgefleet", 1)
    assert record.key() == b"cam-1"
    assert record.value() == bytes(sent.data)
    told = {name: value.decode() for name, value in record.headers()}
    assert told == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": sent.id,
        "ce_source": "/devices/cam-1",
        "ce_type": "dev.edgefleet.alarm",
        "ce_time": msgspec.to_builtins(sent.time),
        **({} if sent.subject is None else {"ce_subject": sent.subject}),
    }


def test_an_event_is_a_record_in_structured_mode(
    forward: Make, records: Callable[[str, int], list[Any]]
) -> None:
    forward(mode="structured", topic="{kind}.of.{device}").take("cam-1", [sent := samples.alarm(1)])
    (record,) = records("alarm.of.cam-1", 1)
    assert record.headers() == [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    event = read_event(record.value())
    assert (event.device, event.id) == ("cam-1", sent.id)


def test_the_events_of_each_device_are_in_order(
    forward: Make, records: Callable[[str, int], list[Any]]
) -> None:
    forwarding = forward()
    sent: dict[str, list[str]] = {f"cam-{number}": [] for number in range(7)}
    for number in range(700):
        device = f"cam-{number % 7}"
        event = samples.alarm(number)
        sent[device].append(event.id)
        forwarding.take(device, [event])
    found = records("edgefleet", 700)
    for device, expected in sent.items():
        mine = [record for record in found if record.key() == device.encode()]
        assert [dict(record.headers())["ce_id"].decode() for record in mine] == expected
        assert len({record.partition() for record in mine}) == 1
    eventually(lambda: figures(forwarding).sent == 700)


def test_a_cluster_that_is_away_gets_them_when_it_is_back(
    forward: Make, records: Callable[[str, int], list[Any]]
) -> None:
    away = forward(brokers=["127.0.0.1:1"], timeout_s=0.2)
    away.take("cam-1", [samples.alarm(number) for number in range(3)])
    eventually(lambda: figures(away).failures)
    assert figures(away).waiting == 3
    away.close()
    back = forward()
    assert len(records("edgefleet", 3)) == 3
    eventually(lambda: figures(back).waiting == 0)


def test_a_record_that_is_too_long_is_set_aside(
    forward: Make, records: Callable[[str, int], list[Any]]
) -> None:
    forwarding = forward(mode="structured")
    long = new_event(Alarm(rule="r", message="x" * 1_010_000), time=samples.MOMENT)
    forwarding.take("cam-1", [long, short := samples.alarm(1)])
    (record,) = records("edgefleet", 1)
    assert read_event(record.value()).id == short.id
    eventually(lambda: figures(forwarding).refused == 1)
    assert figures(forwarding).waiting == 0


def test_a_cluster_without_tls_gets_nothing_where_tls_is_asked_for(forward: Make) -> None:
    forwarding = forward(tls=True, timeout_s=0.5)
    forwarding.take("cam-1", [samples.alarm(1)])
    eventually(lambda: figures(forwarding).failures)
    assert figures(forwarding).sent == 0


def test_a_login_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "login").write_text("ada:s3cret\n")
    settings = KafkaSettings(
        kind="kafka", name="lake", brokers=("kafka.example:9093",), login=tmp_path / "login"
    )
    with closing(KafkaSink(settings)) as sink:
        config = sink._config()
    assert config["security.protocol"] == "sasl_ssl"
    assert (config["sasl.username"], config["sasl.password"]) == ("ada", "s3cret")
    assert not [name for name in config if "verification" in name or "identification" in name]
