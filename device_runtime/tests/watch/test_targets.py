"""Where actions may reach: addresses, webhooks, brokers, files; and what is refused."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from device_runtime.tests.left_sockets import collect_left_sockets
from device_runtime.tests.watch.receivers import Broker, Receiver
from edgefleet.errors import (
    AccessDeniedError,
    LimitExceededError,
    UnavailableError,
)
from edgefleet.testing.cloud.ports import HeldPort
from edgefleet_runtime.watch.actions.addresses import allowed_address, is_local
from edgefleet_runtime.watch.actions.append import append
from edgefleet_runtime.watch.actions.broker import publish
from edgefleet_runtime.watch.actions.webhook import post

# ------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "address, local",
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.31.255.255", True),
        ("192.168.1.9", True),
        ("169.254.7.7", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd12::7", True),
        ("::ffff:192.168.1.9", True),
        ("8.8.8.8", False),
        ("172.32.0.1", False),
        ("::ffff:8.8.8.8", False),
        ("2001:4860:4860::8888", False),
        ("0.0.0.0", False),
        ("169.254.169.254", False),
        ("fd00:ec2::254", False),
        ("no address", False),
    ],
)
def test_which_addresses_are_local(address: str, local: bool) -> None:  # noqa: FBT001
    assert is_local(address) is local


def test_public_address_is_refused_with_the_option_that_allows_it() -> None:
    with pytest.raises(
        AccessDeniedError, match=r"hooks.example is 93.184.216.34, which is not"
    ) as e:
        allowed_address("hooks.example", 443, (), lambda *_: ["93.184.216.34"])
    assert "--alarm-host hooks.example" in str(e.value)


def test_host_that_the_device_names_may_be_anywhere() -> None:
    found = allowed_address("Hooks.example", 443, ("hooks.EXAMPLE",), lambda *_: ["93.184.216.34"])
    assert found == "93.184.216.34"


def test_local_one_of_several_addresses_is_taken() -> None:
    assert allowed_address("plc", 80, (), lambda *_: ["8.8.8.8", "10.0.0.7"]) == "10.0.0.7"


def test_answer_that_changes_after_the_check_leads_nowhere(receiver: Receiver) -> None:
    answers = [["127.0.0.1"], ["93.184.216.34"]]
    url = f"http://rebinding.example:{receiver.server_port}/a"
    post(url, b"{}", timeout_s=60, resolve=lambda *_: answers.pop(0))
    assert answers == [["93.184.216.34"]]
    assert receiver.got[0][1]["Host"] == f"rebinding.example:{receiver.server_port}"


def test_name_without_an_address_is_told() -> None:
    def nowhere(*_: object) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(UnavailableError, match="plc has no address"):
        allowed_address("plc", 80, (), nowhere)


# --------------------------------------------------------------------------------------- webhook


def test_webhook_posts_the_event(receiver: Receiver) -> None:
    post(receiver.url, b'{"a":1}', timeout_s=60)
    ((path, headers, body),) = receiver.got
    assert (path, body) == ("/alarms?line=3", b'{"a":1}')
    assert headers["Content-Type"] == "application/cloudevents+json"


def test_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.status = 302
    with pytest.raises(UnavailableError, match=r"status 302 .redirects are not followed"):
        post(receiver.url, b"{}", timeout_s=60)
    assert len(receiver.got) == 1


def test_refusal_is_told(receiver: Receiver) -> None:
    receiver.status = 500
    with pytest.raises(UnavailableError, match="answers with status 500"):
        post(receiver.url, b"{}", timeout_s=60)


def test_nobody_there_is_told() -> None:
    with (
        closing(HeldPort()) as nobodys,
        pytest.raises(UnavailableError, match=f"127.0.0.1:{nobodys.number} takes no alarm"),
    ):
        post(f"http://127.0.0.1:{nobodys.number}/", b"{}", timeout_s=60)


@pytest.mark.parametrize("answer", [b"220 ftp.example\r\n", b"", b"HTTP/1.1 200OK\r\n"])
def test_what_speaks_no_http_is_told(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UnavailableError, match="takes no alarm"):
            post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", timeout_s=60)
        thread.join()


def test_answer_that_drips_takes_no_longer_than_the_time_given() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0  # each look at the clock is a second later
        return now[0]

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                try:
                    while True:
                        client.sendall(b"H")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(UnavailableError, match="takes no alarm"):
            post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", timeout_s=5, clock=clock)
        thread.join()


# ------------------------------------------------------------------------------------------ MQTT


def test_alarm_is_published_and_acknowledged(broker: Broker) -> None:
    publish(f"mqtt://127.0.0.1:{broker.port}/plant/line%203", b"{}", timeout_s=60)
    assert broker.published == [("plant/line 3", b"{}")]


@pytest.mark.parametrize(
    "how, timeout_s, why",
    [
        ({"acknowledges": False}, 60.0, "doesn't acknowledge"),
        ({"connects": False}, 0.1, "doesn't let this device in"),
    ],
)
def test_broker_that_takes_nothing_is_told(
    how: dict[str, bool], timeout_s: float, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    message = pytest.importorskip("paho.mqtt.client").MQTTMessageInfo
    monkeypatch.setattr(message, "wait_for_publish", lambda _, timeout: waits.append(timeout))
    made = Broker(**how)
    try:
        with pytest.raises(UnavailableError, match=why):
            publish(f"mqtt://127.0.0.1:{made.port}/a", b"{}", timeout_s=timeout_s)
        assert waits == [timeout_s] * ("acknowledges" in how)
    finally:
        made.close()
        collect_left_sockets()


def test_broker_outside_is_refused() -> None:
    with pytest.raises(AccessDeniedError, match="not on a local network"):
        publish("mqtt://b.example/a", b"", timeout_s=1, resolve=lambda *_: ["93.184.216.34"])


# ------------------------------------------------------------------------------------------ files


def test_file_gets_one_line_an_alarm(tmp_path: Path) -> None:
    for number in range(3):
        append(tmp_path, "alarms.ndjson", b"%d" % number, max_bytes=1024)
    assert (tmp_path / "alarms.ndjson").read_text() == "0\n1\n2\n"


def test_file_and_the_one_before_it_stay_below_their_size(tmp_path: Path) -> None:
    for number in range(100):
        append(tmp_path, "a", b"%050d" % number, max_bytes=1024)
        assert all(path.stat().st_size <= 1024 for path in tmp_path.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.1"]
    assert (tmp_path / "a").read_text().endswith("99\n")


def test_line_over_the_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimitExceededError):
        append(tmp_path, "a", b"x" * 1024, max_bytes=1024)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", "..", ".a", "", "a\0b", "a\n"])
def test_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(AccessDeniedError, match="no name of a file"):
        append(tmp_path, name, b"x", max_bytes=1024)


def test_without_a_folder_nothing_is_written() -> None:
    with pytest.raises(AccessDeniedError, match="--alarm-folder"):
        append(None, "a", b"x", max_bytes=1024)


def test_link_is_not_followed(tmp_path: Path) -> None:
    folder, target = tmp_path / "folder", tmp_path / "target"
    folder.mkdir()
    target.write_text("kept")
    (folder / "a").symlink_to(target)
    with pytest.raises(UnavailableError):
        append(folder, "a", b"x", max_bytes=1024)
    assert target.read_text() == "kept"


def test_second_name_of_another_file_is_not_written(tmp_path: Path) -> None:
    folder, target = tmp_path / "folder", tmp_path / "target"
    folder.mkdir()
    target.write_text("kept")
    os.link(target, folder / "a")
    with pytest.raises(AccessDeniedError, match="no plain file"):
        append(folder, "a", b"x", max_bytes=1024)
    assert target.read_text() == "kept"


def test_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(UnavailableError):
        append(tmp_path, "a", b"x", max_bytes=1024)
