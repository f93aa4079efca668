"""Hot events out of a cluster: CloudEvents to a web server and to a broker."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from device_runtime.tests.left_sockets import collect_left_sockets
from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.event import Event, HealthEvent, new_event
from edgefleet.testing.cloud.ports import HeldPort
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.kubernetes.events import MAX_BATCH_BYTES, HttpSender, sender_for
from edgefleet_runtime.channels.kubernetes.mqtt import MqttSender
from edgefleet_runtime.channels.kubernetes.settings import Place, Settings

NODE = "edge-7"
TOKEN = "a-token-that-nobody-may-see"
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/sbin")
REPORTS = Place("edgefleet-reports", "edgefleet")


def event(message: str) -> Event:
    return new_event(HealthEvent(what="hot", message=message))


class Receiver(ThreadingHTTPServer):
    """Takes events under TLS; ``refuse`` gives a status for a batch of messages."""

    daemon_threads = True

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.shown: list[object] = []  # serial numbers of senders' certificates
        self.batches: list[list[dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.refuse: Callable[[list[str]], int] = lambda _messages: 0

    @property
    def messages(self) -> list[str]:
        return [event["data"]["message"] for batch in self.batches for event in batch]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    wbufsize = -1

    def do_POST(self) -> None:
        batch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.connection, ssl.SSLSocket)
        self.server.shown.append((self.connection.getpeercert() or {}).get("serialNumber"))
        self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
        status = self.server.refuse([event["data"]["message"] for event in batch])
        if not status:
            self.server.batches.append(batch)
        self.send_response(status or 202)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        if status == 429:
            self.send_header("Retry-After", "9")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _left_sockets() -> Iterator[None]:
    yield
    collect_left_sockets()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def receiver(authority: trustme.CA) -> Iterator[Receiver]:
    with Receiver(authority) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(authority: trustme.CA, receiver: Receiver, tmp_path: Path) -> Settings:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "token").write_text(f"{TOKEN}\n", encoding="ascii")
    return Settings(
        reports=REPORTS,
        events=f"https://127.0.0.1:{receiver.server_port}/events",
        events_ca=tmp_path / "ca.pem",
        events_token=tmp_path / "token",
    )


def test_events_go_as_a_batch_of_cloudevents(receiver: Receiver, settings: Settings) -> None:
    HttpSender(settings, NODE).send([event("one"), event("two")])
    ((first, second),) = receiver.batches
    assert receiver.messages == ["one", "two"]
    assert (first["specversion"], first["source"]) == ("1.0", f"/devices/{NODE}")
    assert first["id"] != second["id"]
    (headers,) = receiver.headers
    assert headers["content-type"].startswith("application/cloudevents-batch+json")
    assert headers["authorization"] == f"Bearer {TOKEN}"


def test_many_events_are_several_requests(receiver: Receiver, settings: Settings) -> None:
    events = [event(f"{n} " + "x" * 100_000) for n in range(5)]
    HttpSender(settings, NODE).send(events)
    assert [len(batch) for batch in receiver.batches] == [2, 2, 1]


@pytest.mark.parametrize(
    "status, kind",
    [
        (401, AccessDeniedError),
        (403, AccessDeniedError),
        (404, UnavailableError),
        (302, UnavailableError),
        (429, ThrottledError),
        (500, UnavailableError),
    ],
)
def test_what_may_be_taken_later_is_sent_again(
    receiver: Receiver, settings: Settings, status: int, kind: type[Exception]
) -> None:
    receiver.refuse = lambda _: status
    with pytest.raises(kind) as caught:
        HttpSender(settings, NODE).send([event("one")])
    assert TOKEN not in str(caught.value)
    assert len(receiver.headers) == 1  # a redirect is not followed: the token is for this address


def test_an_event_that_is_never_taken_holds_up_no_other(
    receiver: Receiver, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.refuse = lambda messages: 400 if "bad" in messages else 0
    HttpSender(settings, NODE).send([event(text) for text in ("one", "bad", "two", "three")])
    assert sorted(receiver.messages) == ["one", "three", "two"]
    assert "dropped" in caplog.text


def test_an_event_longer_than_a_batch_goes_alone(receiver: Receiver, settings: Settings) -> None:
    HttpSender(settings, NODE).send([event("a"), event("x" * MAX_BATCH_BYTES), event("b")])
    assert [len(batch) for batch in receiver.batches] == [1, 1, 1]


def test_a_token_is_read_again_and_its_absence_is_told(
    receiver: Receiver, settings: Settings, tmp_path: Path
) -> None:
    sender = HttpSender(settings, NODE)
    (tmp_path / "token").write_text("renewed", encoding="ascii")
    sender.send([event("one")])
    assert receiver.headers[0]["authorization"] == "Bearer renewed"
    (tmp_path / "token").unlink()
    with pytest.raises(AccessDeniedError, match="mount the Secret"):
        sender.send([event("two")])


def test_a_receiver_of_an_unknown_authority_gets_nothing(
    receiver: Receiver, settings: Settings
) -> None:
    strict = Settings(reports=REPORTS, events=settings.events)
    with pytest.raises(UnavailableError, match="certificate"):
        HttpSender(strict, NODE).send([event("one")])
    assert receiver.headers == []


def test_certificates_that_cant_be_used_are_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("none", encoding="ascii")
    with pytest.raises(ConfigurationError, match="events_ca"):
        sender_for(
            Settings(reports=REPORTS, events="https://x.test", events_ca=tmp_path / "no.pem"), NODE
        )


def test_a_certificate_that_is_renewed_is_shown_without_a_restart(
    settings: Settings, receiver: Receiver, authority: trustme.CA, tmp_path: Path
) -> None:
    """Who renews certificates of pods replaces the files, long before the old one ends."""

    def renew() -> None:
        leaf = authority.issue_cert(f"{NODE}.example")
        leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
        leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")

    renew()
    own = {"events_cert": tmp_path / "cert.pem", "events_key": tmp_path / "key.pem"}
    sender = HttpSender(msgspec.structs.replace(settings, **own), NODE)
    sender.send([event("one")])
    sender.send([event("two")])
    renew()
    sender.send([event("three")])
    (tmp_path / "key.pem").write_text("half", encoding="ascii")  # the rest comes later
    sender.send([event("four")])
    first, second, third, fourth = receiver.shown
    assert None not in {first, third}
    assert (first, third) == (second, fourth)
    assert first != third


def test_without_an_address_nobody_sends() -> None:
    assert sender_for(Settings(reports=REPORTS), NODE) is None


# ----------------------------------------------------------------------------------------- MQTT


class Broker:
    """mosquitto with TLS, one user, and a subscriber that gathers what comes."""

    def __init__(self, folder: Path, authority: trustme.CA, held: HeldPort) -> None:
        self.folder = folder
        folder.mkdir()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        (folder / "passwords").write_text(f"{NODE}:{TOKEN}\n", encoding="ascii")
        assert MOSQUITTO is not None
        hasher = Path(MOSQUITTO).with_name("mosquitto_passwd")
        hashing = shutil.which("mosquitto_passwd") or str(hasher)
        subprocess.run([hashing, "-U", str(folder / "passwords")], check=True, timeout=90)
        (folder / "passwords").chmod(0o644)
        self.port = held.number
        (folder / "mosquitto.conf").write_text(
            f"user root\nlistener {self.port} 127.0.0.1\nallow_anonymous false\n"
            f"password_file {folder}/passwords\ncafile {folder}/ca.pem\n"
            f"certfile {folder}/server.pem\nkeyfile {folder}/server.pem\n"
            "message_size_limit 262144\n",
            encoding="ascii",
        )
        self.start()

    def start(self) -> None:
        command = [str(MOSQUITTO), "-c", str(self.folder / "mosquitto.conf")]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(90)

    def settings(self, **more: Any) -> Settings:
        given = {
            "events": f"mqtts://localhost:{self.port}/plant/{{device}}/alarms",
            "events_ca": self.folder / "ca.pem",
            "events_token": self.folder / "login",
            **more,
        }
        (self.folder / "login").write_text(f"{NODE}:{TOKEN}\n", encoding="ascii")
        return Settings(reports=REPORTS, **given)

    @contextlib.contextmanager
    def subscribed(self) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        """What arrives meanwhile: topic and content."""
        from paho.mqtt import client as paho

        came: list[tuple[str, dict[str, Any]]] = []
        ready = threading.Event()
        # With paho-mqtt 2 the constructor wants the version of callbacks first.
        versions = getattr(paho, "CallbackAPIVersion", None)
        client: Any = paho.Client(*([] if versions is None else [versions.VERSION2]))
        client.username_pw_set(NODE, TOKEN)
        client.tls_set_context(ssl.create_default_context(cafile=str(self.folder / "ca.pem")))
        client.on_connect = lambda *_: client.subscribe("#", qos=1)
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = lambda _c, _d, m: came.append((m.topic, json.loads(m.payload)))
        client.connect("localhost", self.port)
        client.loop_start()
        assert ready.wait(90)
        yield came
        client.disconnect()
        client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path, authority: trustme.CA) -> Iterator[Broker]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto isn't installed")
    with contextlib.closing(HeldPort()) as held:
        made = Broker(tmp_path / "broker", authority, held)
        yield made
        made.stop()


def test_each_event_is_a_message_of_its_own(broker: Broker) -> None:
    with broker.subscribed() as came:
        MqttSender(broker.settings(), NODE).send([event("one"), event("two")])
        eventually(lambda: len(came) == 2)
    assert {topic for topic, _ in came} == {f"plant/{NODE}/alarms"}
    assert [content["data"]["message"] for _, content in came] == ["one", "two"]
    assert came[0][1]["source"] == f"/devices/{NODE}"


def test_an_address_without_a_topic_has_one_a_device(broker: Broker) -> None:
    settings = broker.settings(events=f"mqtts://localhost:{broker.port}")
    with broker.subscribed() as came:
        MqttSender(settings, NODE).send([event("one")])
        eventually(lambda: came)
    assert came[0][0] == f"edgefleet/{NODE}/hot"


def test_a_wrong_password_is_told_without_it(broker: Broker) -> None:
    settings = broker.settings()
    (broker.folder / "login").write_text(f"{NODE}:wrong-{TOKEN}", encoding="ascii")
    with pytest.raises(AccessDeniedError) as caught:
        MqttSender(settings, NODE).send([event("one")])
    assert TOKEN not in str(caught.value)


def test_a_broker_that_is_away_means_later(broker: Broker) -> None:
    sender = MqttSender(broker.settings(), NODE)
    broker.stop()
    with pytest.raises(UnavailableError):
        sender.send([event("one")])
    broker.start()
    with broker.subscribed() as came:
        sender.send([event("one")])
        eventually(lambda: came)


def test_a_broker_that_acknowledges_nothing_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = pytest.importorskip("paho.mqtt.client")
    waits: list[float] = []
    monkeypatch.setattr(
        client.MQTTMessageInfo, "wait_for_publish", lambda _info, timeout: waits.append(timeout)
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        thread = threading.Thread(target=_connects_only, args=(silent,))
        thread.start()
        address = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnavailableError, match="acknowledge"):
            MqttSender(Settings(reports=REPORTS, events=address), NODE).send(
                [event("one"), event("two"), event("three")]
            )
        thread.join()
    assert len(waits) == 1


def _connects_only(server: socket.socket) -> None:
    """A broker that takes one client and never says anything but that."""
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):
        connection.recv(1024)
        connection.sendall(b"\x20\x02\x00\x00")  # CONNACK: accepted
        while connection.recv(4096):
            pass


# paho-mqtt 1.6 leaves the socket of a handshake that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_of_an_unknown_authority_gets_nothing(broker: Broker) -> None:
    settings = broker.settings(events_ca=None)
    with pytest.raises(UnavailableError, match="certificate"):
        MqttSender(settings, NODE).send([event("one")])
