"""Connections: kept, resumed, through proxies, and cut off where they would go on for ever."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from device_runtime.tests.channels.pull.proxy import proxying
from device_runtime.tests.channels.pull.standin import Enrolled, StandIn
from device_runtime.tests.support import Clock
from edgefleet.errors import ConfigurationError, LimitExceededError, UnavailableError
from edgefleet.protocol.gateway import AUTHORITIES, BLOBS
from edgefleet_runtime.channels.pull.https import IDLE_S, Https


@pytest.fixture
def host(gateway: StandIn, enrolled: Enrolled, clock: Clock) -> Iterator[Https]:
    found = Https(gateway.address, context=enrolled.context, timeout_s=20.0, clock=clock)
    yield found
    found.close()


def test_a_connection_is_used_again(gateway: StandIn, host: Https) -> None:
    for _ in range(5):
        assert host.ask("GET", AUTHORITIES).status == 200
    assert gateway.handshakes == 1


def test_a_connection_that_was_silent_for_long_is_not_and_its_session_is_resumed(
    gateway: StandIn, host: Https, clock: Clock
) -> None:
    host.ask("GET", AUTHORITIES)
    clock.now += IDLE_S + 1
    host.ask("GET", AUTHORITIES)
    assert (gateway.handshakes, gateway.resumed) == (2, 1)


def test_a_kept_connection_that_is_gone_is_replaced_unnoticed(
    gateway: StandIn, host: Https
) -> None:
    host.ask("GET", AUTHORITIES)
    gateway.script[:] = ["drop"]
    assert host.ask("GET", AUTHORITIES).status == 200
    assert gateway.handshakes == 2


def test_a_new_connection_that_breaks_off_is_an_error(gateway: StandIn, host: Https) -> None:
    gateway.script[:] = ["drop"]
    with pytest.raises(UnavailableError):
        host.ask("GET", AUTHORITIES)
    assert len(gateway.asked) == 1


def test_half_an_answer_is_none(gateway: StandIn, host: Https) -> None:
    gateway.script[:] = ["half"]
    with pytest.raises(UnavailableError):
        host.ask("GET", AUTHORITIES)
    assert host.ask("GET", AUTHORITIES).status == 200


def test_an_answer_has_a_limit(gateway: StandIn, host: Https) -> None:
    digest = gateway.put(b"x" * 5000)
    path = f"{BLOBS}/sha256/{digest.removeprefix('sha256:')}"
    assert len(host.ask("GET", path, max_bytes=5000).body) == 5000
    with pytest.raises(LimitExceededError):
        host.ask("GET", path, max_bytes=4999)
    assert host.ask("GET", AUTHORITIES).status == 200


def test_after_closing_nothing_is_asked(gateway: StandIn, host: Https) -> None:
    host.close()
    with pytest.raises(UnavailableError, match="closed"):
        host.ask("GET", AUTHORITIES)
    assert not gateway.asked


def test_who_connects_while_it_is_closed_asks_nothing(
    gateway: StandIn, authority: trustme.CA
) -> None:
    """No socket can be shut while hands are shaken; news may be waited for for minutes."""

    class Shaking(ssl.SSLContext):
        def wrap_socket(self, *given: Any, **named: Any) -> ssl.SSLSocket:
            made = super().wrap_socket(*given, **named)
            own.close()
            return made

    context = Shaking(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    own = Https(gateway.address, context=lambda: context, timeout_s=20.0)
    with pytest.raises(UnavailableError, match="closed"):
        own.ask("GET", AUTHORITIES)
    assert not gateway.asked


# ------------------------------------------------------------------------------------- proxies


def test_a_proxy_of_the_environment_is_gone_through(
    gateway: StandIn, host: Https, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxying() as proxy:
        known = proxy.address.replace("http://", "http://me:s%20cret@")
        monkeypatch.setenv("HTTPS_PROXY", known)
        assert host.ask("GET", AUTHORITIES).status == 200
        (seen,) = proxy.seen
    assert f"CONNECT localhost:{gateway.server_port} " in seen
    assert "Proxy-Authorization: Basic bWU6cyBjcmV0" in seen
    assert "Proxy-Authorization" not in gateway.asked[0].headers


def test_no_proxy_is_kept_to(
    gateway: StandIn, host: Https, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        monkeypatch.setenv("NO_PROXY", "localhost")
        host.ask("GET", AUTHORITIES)
        assert not proxy.seen


@pytest.mark.parametrize("named", [1, 0])
def test_a_proxy_that_is_named_counts_more(
    gateway: StandIn, enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch, named: int
) -> None:
    with proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        host = Https(
            gateway.address,
            context=enrolled.context,
            proxy=proxy.address if named else "none",
        )
        assert host.ask("GET", AUTHORITIES).status == 200
        assert len(proxy.seen) == named
        host.close()


@pytest.mark.parametrize(
    "refusal, cure",
    [
        ("407 Proxy Authentication Required", "user and password"),
        ("502 Bad Gateway", "let the proxy pass"),
        ("403 Forbidden", "let the proxy pass"),
    ],
)
def test_a_proxy_that_refuses_is_told_apart(
    gateway: StandIn, enrolled: Enrolled, refusal: str, cure: str
) -> None:
    with proxying(refusal) as proxy:
        known = proxy.address.replace("http://", "http://me:secret@")
        host = Https(gateway.address, context=enrolled.context, proxy=known)
        with pytest.raises(UnavailableError, match=f"HTTP {refusal[:3]}") as caught:
            host.ask("GET", AUTHORITIES)
        host.close()
    assert cure in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not gateway.asked


@pytest.mark.parametrize(
    "proxy", ["socks5://host:1080", "https://host:1", "http://:secret@", "http://h:x"]
)
def test_what_is_no_proxy_is_refused_without_repeating_it(enrolled: Enrolled, proxy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Https("https://localhost", context=enrolled.context, proxy=proxy)
    assert proxy not in str(caught.value)
