"""Events by MQTT, to a broker that goes away, hangs, refuses, or isn't who it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from device_runtime.tests.left_sockets import collect_left_sockets
from edgefleet.interfaces.retrying import Pauses
from edgefleet.protocol.event import Alarm, new_event, read_event
from edgefleet.testing.kit import samples
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.sinks.running import Forwarding, SinkFigures
from edgefleet_gateway.sinks.settings import MqttSettings
from providers.gateway.tests.sinks.broker import Login, Running, silent

SOON = Pauses(first_s=0.01, most_s=0.02, longest_told_s=0.5)
Make = Callable[..., Forwarding]


@pytest.fixture(autouse=True)
def _left_sockets() -> Iterator[None]:
    yield
    collect_left_sockets()


@pytest.fixture
def broker() -> Iterator[Running]:
    running = Running()
    running.start()
    yield running
    running.close()


@pytest.fixture
def forward(tmp_path: Path) -> Iterator[Make]:
    made: list[Forwarding] = []

    def make(address: str, **settings: Any) -> Forwarding:
        given = {"kind": "mqtt", "name": "plant", "address": address, **settings}
        one = MqttSettings.model_validate(given)
        made.append(Forwarding([one], tmp_path, base=tmp_path, pauses=SOON))
        return made[-1]

    yield make
    for one in made:
        one.close()


def figures(forwarding: Forwarding) -> SinkFigures:
    (one,) = forwarding.figures()
    return one


def ids(broker: Running) -> list[str]:
    return [read_event(data).id for _, _, data in broker.messages]


def test_each_event_is_a_message_below_its_device_and_kind(forward: Make, broker: Running) -> None:
    forwarding = forward(f"mqtt://127.0.0.1:{broker.port}", topic="ships/{device}/{kind}")
    forwarding.take("cam-1", [sent := samples.alarm(1)])
    eventually(lambda: broker.messages)
    ((topic, quality, data),) = broker.messages
    assert (topic, quality) == ("ships/cam-1/alarm", 1)
    event = read_event(data)
    assert (event.id, event.device) == (sent.id, "cam-1")


def test_an_event_of_a_kind_that_is_none_of_ours_reaches_no_topic_of_its_choice(
    forward: Make, broker: Running
) -> None:
    forwarding = forward(f"mqtt://127.0.0.1:{broker.port}")
    forged = [
        msgspec.structs.replace(samples.alarm(number), type=kind)
        for number, kind in enumerate(("dev.edgefleet.#", "../../cam-2/alarm", "a" * 100))
    ]
    forwarding.take("cam-1", forged)
    eventually(lambda: len(broker.messages) == 3)
    assert {topic for topic, _, _ in broker.messages} == {"edgefleet/cam-1/other"}


def test_a_broker_that_goes_away_gets_all_when_it_is_back(forward: Make, broker: Running) -> None:
    broker.stop()
    forwarding = forward(f"mqtt://127.0.0.1:{broker.port}")
    sent = [samples.alarm(number) for number in range(150)]
    forwarding.take("cam-1", sent[:50])
    eventually(lambda: figures(forwarding).away)
    broker.start()
    eventually(lambda: figures(forwarding).sent == 50)
    broker.stop()
    forwarding.take("cam-1", sent[50:])
    eventually(lambda: figures(forwarding).away)
    assert figures(forwarding).waiting == 100
    broker.start()
    eventually(lambda: len(set(ids(broker))) == 150)
    assert list(dict.fromkeys(ids(broker))) == [event.id for event in sent]


def test_what_is_not_acknowledged_goes_on_waiting(forward: Make) -> None:
    with silent() as port:
        forwarding = forward(f"mqtt://127.0.0.1:{port}", timeout_s=0.1)
        forwarding.take("cam-1", [samples.alarm(1)])
        eventually(lambda: figures(forwarding).failures >= 2)
        assert (figures(forwarding).waiting, figures(forwarding).sent) == (1, 0)
        forwarding.close()


def test_a_message_that_is_too_long_is_set_aside(forward: Make, broker: Running) -> None:
    forwarding = forward(f"mqtt://127.0.0.1:{broker.port}", max_bytes=2048)
    long = new_event(Alarm(rule="r", message="x" * 4096), time=samples.MOMENT)
    forwarding.take("cam-1", [long, short := samples.alarm(1)])
    eventually(lambda: figures(forwarding).waiting == 0)
    eventually(lambda: ids(broker) == [short.id])
    ((_, _, reason),) = forwarding.aside("plant")
    assert "max_bytes" in reason


def test_a_login_comes_from_a_file_and_is_read_anew(
    forward: Make, broker: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Login.password = "right"
    (tmp_path / "login").write_text("gateway:wrong-one")
    forwarding = forward(f"mqtt://127.0.0.1:{broker.port}", login="login")
    forwarding.take("cam-1", [samples.alarm(1)])
    eventually(lambda: figures(forwarding).failures)
    assert broker.messages == []
    (tmp_path / "login").write_text("gateway:right")
    eventually(lambda: figures(forwarding).sent == 1)
    assert "wrong-one" not in caplog.text


# paho-mqtt 1.6 leaves the socket of a handshake that failed to the collector.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.parametrize("known", ["authority", "another"])
def test_a_broker_is_believed_by_its_certificate_alone(
    forward: Make, tmp_path: Path, known: str
) -> None:
    authority, another = trustme.CA(), trustme.CA()
    pair = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    pair.write_to_path(tmp_path / "server.pem")
    (authority if known == "authority" else another).cert_pem.write_to_path(tmp_path / "ca.pem")
    broker = Running(tmp_path / "server.pem")
    broker.start()
    try:
        forwarding = forward(f"mqtts://127.0.0.1:{broker.port}", ca="ca.pem")
        forwarding.take("cam-1", [samples.alarm(1)])
        if known == "authority":
            eventually(lambda: figures(forwarding).sent == 1)
        else:
            eventually(lambda: figures(forwarding).failures >= 2)
            assert broker.messages == []
        forwarding.close()
    finally:
        broker.close()
