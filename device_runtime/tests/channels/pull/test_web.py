"""A device that reads a plain web server, and waits with what it has to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from device_runtime.tests.channels.pull.standin import StandIn, serving
from edgefleet.errors import ConfigurationError, UnavailableError
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.channels.pull.channel import PullChannel
from edgefleet_runtime.channels.pull.from_web import WebChannel

POINTED = b'{"a pointer": 1}'


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[StandIn]:
    """A gateway's stand-in is a web server as well: its pointer lies at another path."""
    with serving(StandIn(authority)) as found:
        yield found


@pytest.fixture
def channel(server: StandIn, trusted: None) -> Iterator[WebChannel]:
    # Without a thread: it would ask again in between, and take a turn that a test means for itself.
    with closing(WebChannel(f"{server.address}/v1/", start=lambda *_: None)) as found:
        yield found


def test_an_address_is_all_that_a_device_is_given(server: StandIn, trusted: None) -> None:
    server.point(POINTED)
    options = {"url": f"{server.address}/v1/"}
    with closing(PullChannel.from_options(options, device="cam-07")) as found:
        assert isinstance(found, WebChannel)
        assert found.pointer() == POINTED


@pytest.fixture
def trusted(
    authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path_factory.mktemp("system") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


def test_the_pointer_is_a_file_that_is_sent_once(server: StandIn, channel: WebChannel) -> None:
    server.point(POINTED)
    assert channel.pointer() == POINTED
    channel.poller.turn()
    assert server.paths() == ["/v1/pointer.json"] * 2
    assert "If-None-Match" in server.asked[1].headers
    assert channel.pointer() == POINTED
    server.point(b'{"a pointer": 2}')
    channel.wait(0)
    channel.poller.turn()
    assert channel.wait(0)
    assert channel.pointer() == b'{"a pointer": 2}'


def test_blobs_lie_below_the_same_address(server: StandIn, channel: WebChannel) -> None:
    digest = server.put(b"a model")
    (address,) = channel.addresses()
    source = channel.source(address)
    assert source is not None
    with source.open(digest, 2) as stream:
        assert stream.read(100) == b"model"


def test_what_the_device_has_to_say_waits_and_access_says_so(
    server: StandIn, channel: Channel
) -> None:
    server.point(POINTED)
    channel.pointer()
    said = channel.access()
    assert said.state == "ok"
    assert "wait on this device" in str(said.detail)
    with pytest.raises(UnavailableError):
        channel.send_report(b"{}")
    with pytest.raises(UnavailableError):
        channel.send_hot([])
    with pytest.raises(UnavailableError):
        channel.upload("segments/a", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", ["html", "redirect:https://login.example/", "511", "404", "403"])
def test_what_is_no_pointer_is_none(server: StandIn, channel: WebChannel, step: str) -> None:
    server.point(POINTED)
    channel.pointer()
    server.script[:] = [step]
    channel.poller.turn()
    assert channel.access().state == ("denied" if step == "403" else "unknown")
    assert channel.pointer() == POINTED
    assert set(server.paths()) == {"/v1/pointer.json"}


def test_a_server_that_the_system_does_not_believe_is_not_read(server: StandIn) -> None:
    server.point(POINTED)
    with closing(WebChannel(server.address)) as channel:
        assert channel.pointer() is None
        assert "not believed" in str(channel.access().detail)
    assert not server.asked


def test_a_clock_that_is_wrong_is_told(server: StandIn, trusted: None) -> None:
    server.point(POINTED)
    here = (datetime.now(UTC) + timedelta(days=400)).timestamp()
    with closing(WebChannel(f"{server.address}/v1", now=lambda: here)) as channel:
        channel.pointer()
        said = str(channel.access().detail)
    assert "wait on this device" in said
    assert "this device's clock is 400 days ahead of the web server's" in said


def test_by_the_date_of_a_cache_no_clock_is_wrong(server: StandIn, trusted: None) -> None:
    server.point(POINTED)
    server.date = datetime.now(UTC) - timedelta(days=3)
    server.cached = True
    with closing(WebChannel(f"{server.address}/v1")) as channel:
        assert channel.pointer() == POINTED
        assert "clock" not in str(channel.access().detail)


def test_a_certificate_that_a_wrong_clock_refuses_is_told_as_such(
    authority: trustme.CA, trusted: None
) -> None:
    ended = datetime.now(UTC) - timedelta(days=1)
    with (
        serving(StandIn(authority, not_after=ended)) as server,
        closing(WebChannel(server.address, now=lambda: 86_400.0)) as channel,
    ):
        channel.pointer()
        said = str(channel.access().detail)
    assert "clock says it is 1970-01-02" in said
    assert "timedatectl" in said
    assert "sign-in" not in said


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url": "http://plain.example/fleet"},
        {"url": "https://user:secret@host.example/fleet"},
        {"url": "https://host.example/fleet?token=secret"},
        {"url": "https://host.example:x/"},
        {"url": "https://host.example", "media": "/media/usb"},
        {"url": "https://host.example", "identity": "/etc/identity"},
        {"url": "https://host.example", "poll_s": "0"},
        {"url": "https://host.example", "poll_s": "soon"},
        {"url": "https://host.example", "wait_s": "56"},
        {"url": "https://host.example", "wait_s": "nan"},
        {"url": "https://host.example", "proxy": "socks5://host"},
        {"url": "https://host.example", "password": "x"},
        {"identity": "/no/such/folder"},
    ],
)
def test_wrong_options_are_refused_with_a_cure(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PullChannel.from_options(options, device="cam-07")
    assert caught.value.cure
    assert "secret" not in str(caught.value)
