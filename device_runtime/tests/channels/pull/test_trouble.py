"""Networks that lie, names that don't resolve, clocks that are wrong: nothing is lost, and told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme

from device_runtime.tests.channels.pull.conftest import Make
from device_runtime.tests.channels.pull.standin import PORTAL, Enrolled, StandIn, serving
from device_runtime.tests.support import Clock
from edgefleet.errors import AccessDeniedError, AccessExpiredError, UnavailableError
from edgefleet.protocol.gateway import POINTER, RENEW, REPORT

POINTED = b'{"a pointer": 1}'


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where somebody answers who speaks no TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        over = threading.Event()

        def run() -> None:
            while not over.is_set():
                try:
                    came, _ = listening.accept()
                except TimeoutError:
                    continue
                with came:
                    came.settimeout(60)
                    answer(came)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            thread.join()


def portal(came: socket.socket) -> None:
    came.recv(1024)
    came.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n" + PORTAL)


# ------------------------------------------------------------------------------------- portals


def test_a_portal_with_its_own_certificate_is_known_and_shown_nothing(
    enrolled: Enrolled, gateway: StandIn, make: Make
) -> None:
    gateway.point(POINTED)
    channel = make()
    assert channel.pointer() == POINTED
    with serving(StandIn(trustme.CA())) as elsewhere:
        enrolled.identity = Enrolled(enrolled.authority, elsewhere.address).identity
        channel.poller.turn()
        said = channel.access()
        with pytest.raises(UnavailableError, match="sign-in page"):
            channel.send_report(b"{}")
        assert not elsewhere.asked
    assert said.state == "unknown"
    assert "sign-in page" in str(said.detail)
    assert channel.pointer() == POINTED
    enrolled.identity = Enrolled(enrolled.authority, gateway.address).identity
    channel.wait(0)
    channel.poller.turn()
    assert channel.access().state == "ok"
    assert channel.wait(0)  # what failed is tried again at once


def test_a_portal_without_tls_is_known(enrolled: Enrolled, make: Make) -> None:
    with answering(portal) as port:
        channel = make(Enrolled(enrolled.authority, f"https://localhost:{port}"))
        assert channel.pointer() is None
        said = channel.access()
    assert said.state == "unknown"
    assert "speaks no TLS" in str(said.detail)


@pytest.mark.parametrize("step", ["html", "redirect:http://login.example/", "511", "204;"])
def test_what_is_no_answer_of_a_gateway_is_none(gateway: StandIn, make: Make, step: str) -> None:
    gateway.point(POINTED)
    channel = make()
    channel.pointer()
    gateway.script[:] = [step]
    channel.poller.turn()
    if step != "204;":  # the gateway says so, and that there is no pointer
        assert channel.access().state == "unknown"
        assert channel.pointer() == POINTED
        assert "sign-in page" in str(channel.access().detail)
    assert not [path for path in gateway.paths() if path != POINTER]  # no redirect was followed


def test_a_certificate_for_another_name_is_not_believed(enrolled: Enrolled, make: Make) -> None:
    with serving(StandIn(enrolled.authority, "gateway.example")) as other:
        channel = make(Enrolled(enrolled.authority, other.address))
        channel.pointer()
        assert channel.access().state == "unknown"
        assert "not believed" in str(channel.access().detail)
        assert not other.asked


def test_a_gateway_that_does_not_know_the_certificate_is_a_refusal(
    gateway: StandIn, enrolled: Enrolled, make: Make
) -> None:
    stranger = Enrolled(trustme.CA(), gateway.address)
    stranger.authority.configure_trust(stranger.context())
    enrolled.authority.configure_trust(stranger.context())
    channel = make(stranger)
    channel.pointer()
    said = channel.access()
    # The alert may be overtaken by the end of the connection.
    assert said.state in {"denied", "unknown"}
    assert not gateway.asked


# --------------------------------------------------------------------------------------- names


def test_a_name_that_does_not_resolve_is_told_as_such(
    gateway: StandIn, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.point(POINTED)
    channel = make()
    channel.pointer()
    channel.gateways.host(gateway.address).close()
    channel.gateways._hosts.clear()

    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", nobody)
        channel.poller.turn()
        assert channel.access().state == "unknown"
        assert "DNS" in str(channel.access().detail)
        assert channel.pointer() == POINTED
    channel.poller.turn()
    assert channel.access().state == "ok"


def test_a_gateway_that_is_away_is_left_for_the_next_and_tried_again_later(
    enrolled: Enrolled, gateway: StandIn, make: Make
) -> None:
    clock = Clock()
    gateway.point(POINTED)
    with serving(StandIn(enrolled.authority)) as second:
        second.point(POINTED)
        channel = make(Enrolled(enrolled.authority, gateway.address, second.address), clock=clock)
        gateway.script[:] = ["500"]
        assert channel.pointer() == POINTED
        assert channel.addresses()[0] == f"{second.address}/v1"
        channel.send_report(b"{}")
        assert second.reports == [b"{}"]
        clock.now += 601.0
        gateway.only = ("PUT", REPORT)
        gateway.script[:] = ["500"]
        channel.send_report(b"{}")
        channel.send_report(b"{}")
        assert len(gateway.paths("PUT")) == 1  # it is still away: not asked again at each call
        assert len(second.reports) == 3
        clock.now += 601.0
        channel.send_report(b"{}")
        assert gateway.reports == [b"{}"]


# --------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize(
    "years, words", [(-20, "days behind"), (-56.8, "days behind"), (15, "days ahead of")]
)
def test_a_clock_that_is_years_off_keeps_no_device_away(
    enrolled: Enrolled, make: Make, years: float, words: str
) -> None:
    now = datetime.now(UTC)
    valid: dict[str, Any] = {
        "not_before": now - timedelta(days=1),
        "not_after": now + timedelta(days=90),
    }
    here = (now + timedelta(days=365 * years)).timestamp()
    with serving(StandIn(enrolled.authority, **valid)) as gateway:
        gateway.point(POINTED)
        channel = make(Enrolled(enrolled.authority, gateway.address), now=lambda: here)
        assert channel.pointer() == POINTED
        said = channel.access()
        assert said.state == "ok"
        assert words in str(said.detail)


def test_a_clock_that_is_right_is_not_spoken_of(gateway: StandIn, make: Make) -> None:
    channel = make()
    channel.pointer()
    assert channel.access().detail is None


def test_a_certificate_that_ended_by_the_gateways_own_clock_is_not_believed(
    enrolled: Enrolled, make: Make
) -> None:
    now = datetime.now(UTC)
    ended: dict[str, Any] = {
        "not_before": now - timedelta(days=90),
        "not_after": now - timedelta(days=1),
    }
    with serving(StandIn(enrolled.authority, **ended)) as gateway:
        gateway.point(POINTED)
        channel = make(Enrolled(enrolled.authority, gateway.address))
        assert channel.pointer() is None
        assert channel.access().state == "unknown"
        assert "not valid now" in str(channel.access().detail)
        assert gateway.paths() == ["/v1/ca"]  # nothing of the device's was shown


def test_a_wrong_clock_excuses_no_other_authority(enrolled: Enrolled, make: Make) -> None:
    with serving(StandIn(trustme.CA())) as other:
        other.point(POINTED)
        channel = make(Enrolled(enrolled.authority, other.address), now=lambda: 0.0)
        assert channel.pointer() is None
        assert not other.asked


# -------------------------------------------------------------------------------- certificates


def test_a_certificate_is_renewed_in_time_and_used_at_once(
    gateway: StandIn, enrolled: Enrolled, make: Make
) -> None:
    gateway.renew = lambda _: enrolled.identity
    channel = make()
    channel.pointer()
    enrolled.due = True
    channel.poller.turn()
    assert gateway.paths()[-2:] == [RENEW, POINTER]
    assert enrolled.renewals == 1
    assert gateway.asked[-2].body == enrolled.renewal()
    assert gateway.handshakes == 2
    assert gateway.resumed == 0  # the session knew the old certificate


def test_by_a_clock_that_nobody_confirmed_no_certificate_is_old(
    gateway: StandIn, enrolled: Enrolled, make: Make
) -> None:
    enrolled.due = True
    make().send_report(b"{}")
    assert gateway.paths() == [REPORT]


def test_a_certificate_that_ended_is_renewed_first(
    gateway: StandIn, enrolled: Enrolled, make: Make
) -> None:
    gateway.renew = lambda _: enrolled.identity
    gateway.point(POINTED)
    channel = make()
    gateway.script[:] = ["problem:403:expired"]
    assert channel.pointer() == POINTED
    assert gateway.paths() == [POINTER, RENEW, POINTER]
    assert channel.access().state == "ok"


def test_a_renewal_that_is_refused_says_what_to_do(gateway: StandIn, make: Make) -> None:
    gateway.point(POINTED)
    channel = make()
    channel.pointer()
    gateway.script[:] = ["problem:403:expired"]
    channel.poller.turn()
    said = channel.access()
    assert said.state == "expired"
    assert "edgefleet device enroll" in str(said.detail)
    assert channel.pointer() == POINTED
    gateway.script[:] = ["problem:403:expired"]
    with pytest.raises(AccessExpiredError):
        channel.send_report(b"{}")


def test_a_renewal_that_does_not_get_through_keeps_a_valid_certificate_in_use(
    gateway: StandIn, enrolled: Enrolled, make: Make
) -> None:
    channel = make()
    channel.pointer()
    gateway.only = ("POST", RENEW)
    gateway.script[:] = ["500", "500"]
    enrolled.due = True
    channel.send_report(b"{}")
    channel.send_report(b"{}")
    assert gateway.reports == [b"{}"] * 2
    assert gateway.paths("POST") == [RENEW]  # and it isn't asked for at each call


def test_a_revoked_device_is_refused_everywhere(gateway: StandIn, make: Make) -> None:
    channel = make()
    gateway.script[:] = ["problem:403:revoked"] * 2
    channel.pointer()
    with pytest.raises(AccessDeniedError, match="revoked"):
        channel.send_report(b"{}")
    assert channel.access().state == "denied"


# ------------------------------------------------------------------------------------- reports


@pytest.mark.parametrize("step", ["drop", "mute", "half", "500", "html"])
def test_a_report_that_does_not_get_through_is_the_callers_to_repeat(
    gateway: StandIn, make: Make, step: str
) -> None:
    gateway.only = ("PUT", REPORT)
    gateway.script[:] = [step]
    channel = make()
    if step != "half":  # an answer without a body is whole
        with pytest.raises(UnavailableError):
            channel.send_report(b'{"sequence":1}')
    channel.send_report(b'{"sequence":2}')
    assert gateway.reports[-1] == b'{"sequence":2}'
