"""First contact: the gateway is known before the token is shown; the same again is nothing."""

from __future__ import annotations

import io
import socket
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from device_runtime.tests.channels.pull.small_authority import SmallAuthority
from device_runtime.tests.channels.pull.standin import StandIn, serving
from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    EdgeFleetError,
    IntegrityError,
    InvalidInputError,
    UnavailableError,
)
from edgefleet.protocol.documents import decode
from edgefleet.protocol.gateway import TOKEN_EXPIRED, TOKEN_USED, Enrolment, Identity, Problem
from edgefleet_runtime import cli
from edgefleet_runtime.channels.pull.enrolling import Enrolled, Trust, enroll, pins_of
from edgefleet_runtime.channels.pull.identity import DeviceIdentity, IdentityFolder
from edgefleet_runtime.channels.pull.keys import pin_of

TOKEN = "a-token-of-a-test-0123456789"
Try = Callable[..., Enrolled]


class Granting:
    """What a gateway does with tokens: each once, for one key."""

    def __init__(self) -> None:
        self.authority = SmallAuthority()
        self.given: dict[str, tuple[str, Identity]] = {}
        self.asked: list[Enrolment] = []

    def __call__(self, body: bytes) -> Identity | Problem:
        asked = decode(Enrolment, body)
        self.asked.append(asked)
        found = self.authority.grant(asked.request)
        key, before = self.given.setdefault(asked.token, (_key(asked.request), found))
        if key != _key(asked.request):
            return Problem(
                title="the token for cam-07 was used", status=403, detail="ask", code=TOKEN_USED
            )
        return before


def _key(request: str) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_pem_x509_csr(request.encode()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()


@pytest.fixture
def granting(gateway: StandIn) -> Granting:
    found = Granting()
    gateway.enroll = found
    return found


def pin(server: StandIn) -> str:
    pem = ssl.get_server_certificate(("localhost", server.server_port))
    return pin_of(ssl.PEM_cert_to_DER_cert(pem))


@pytest.fixture
def act(gateway: StandIn, granting: Granting, tmp_path: Path) -> Try:
    def enrolled(**options: object) -> Enrolled:
        given = {"trust": Trust(pins=(pin(gateway),)), "wait": lambda _: None, **options}
        return enroll(gateway.address, tmp_path / "identity", TOKEN, **given)  # type: ignore[arg-type]

    return enrolled


def asked_of(server: StandIn) -> int:
    return sum("/enroll" in one.path for one in server.asked)


def test_a_machine_becomes_the_device_of_its_token(
    act: Try, granting: Granting, tmp_path: Path
) -> None:
    found = act(labels={"target": "raspberry-pi-5"})
    assert (found.kept.device, found.already, found.clock) == ("cam-07", False, None)
    assert DeviceIdentity(tmp_path / "identity").identity.fleet == found.kept.fleet
    (asked,) = granting.asked
    assert asked.labels == {"target": "raspberry-pi-5"}
    assert "PRIVATE" not in asked.request


def test_the_same_again_asks_nobody(act: Try, gateway: StandIn) -> None:
    first = act()
    again = act()
    assert again.already
    assert again.kept == first.kept
    assert asked_of(gateway) == 1


def test_another_token_makes_another_key_and_replaces_the_identity(
    act: Try, gateway: StandIn, tmp_path: Path
) -> None:
    first = act()
    folder = tmp_path / "identity"
    second = enroll(gateway.address, folder, "b" * 30, trust=Trust(pins=(pin(gateway),)))
    assert second.kept.serial != first.kept.serial
    assert DeviceIdentity(folder).identity.certificate == second.kept.certificate


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_key(
    act: Try, gateway: StandIn, granting: Granting
) -> None:
    gateway.only = ("POST", "")
    gateway.script = ["mute", "half"]
    assert act().kept.device == "cam-07"
    assert len({_key(one.request) for one in granting.asked}) == 1
    assert len(granting.asked) == 3


def test_a_gateway_with_another_key_is_shown_nothing(
    act: Try, gateway: StandIn, authority: trustme.CA, tmp_path: Path
) -> None:
    # Its certificate is by the same authority: it is the key that counts.
    with serving(StandIn(authority)) as other:
        wrong = Trust(pins=(pin(other),))
    with pytest.raises(AccessDeniedError, match="another key than the pinned one"):
        act(trust=wrong)
    assert asked_of(gateway) == 0
    assert not (tmp_path / "identity" / "identity.json").exists()
    assert act(trust=Trust(pins=(*wrong.pins, pin(gateway)))).kept.device == "cam-07"


def test_a_gateway_may_be_verified_by_its_authority(
    act: Try, gateway: StandIn, authority: trustme.CA, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right.pem", tmp_path / "wrong.pem"
    authority.cert_pem.write_to_path(str(right))
    trustme.CA().cert_pem.write_to_path(str(wrong))
    with pytest.raises(UnavailableError, match="not believed"):
        act(trust=Trust(ca=wrong))
    waited: list[float] = []
    with pytest.raises(UnavailableError, match="not believed") as refused:
        act(trust=Trust(), wait=waited.append)  # the system's authorities don't know it either
    assert "--pin" in str(refused.value.cure)
    assert "--ca" in str(refused.value.cure)
    assert not waited  # asking again would not help
    with pytest.raises(ConfigurationError, match="can't be read"):
        act(trust=Trust(ca=tmp_path / "absent.pem"))
    assert asked_of(gateway) == 0
    assert act(trust=Trust(ca=right)).kept.device == "cam-07"


def test_by_its_authority_a_gateway_must_have_the_name_too(
    authority: trustme.CA, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with serving(StandIn(authority, "elsewhere.example")) as other:
        with pytest.raises(UnavailableError, match="not believed"):
            enroll(other.address, tmp_path / "id", TOKEN, trust=Trust(ca=ca), wait=lambda _: None)
        assert asked_of(other) == 0


@pytest.mark.parametrize("years", [-56, -10, 10])
def test_a_clock_that_is_years_off_keeps_nobody_out_and_is_told(act: Try, years: int) -> None:
    here = datetime.now(UTC) + timedelta(days=365 * years)
    found = act(now=here.timestamp)
    assert found.clock is not None
    assert ("behind" if years < 0 else "ahead of") in found.clock


def test_a_named_authority_needs_no_clock(authority: trustme.CA, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    ended = datetime.now(UTC) - timedelta(days=3650)
    with serving(StandIn(authority, not_after=ended)) as server:
        server.enroll = Granting()
        found = enroll(server.address, tmp_path / "id", TOKEN, trust=Trust(ca=ca))
    assert found.kept.device == "cam-07"


def test_where_the_system_verifies_a_wrong_clock_is_named(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    ended = datetime.now(UTC) - timedelta(days=1)
    with (
        serving(StandIn(authority, not_after=ended)) as server,
        pytest.raises(UnavailableError, match="clock says it is 1970-01-02") as caught,
    ):
        enroll(server.address, tmp_path / "id", TOKEN, trust=Trust(), now=lambda: 86_400.0)
    assert not caught.value.retryable
    assert "timedatectl" in str(caught.value)


def test_a_gateway_that_is_away_is_asked_a_few_times_and_the_key_stays(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    waited: list[float] = []
    address, folder = f"https://localhost:{port}", tmp_path / "id"
    with pytest.raises(UnavailableError, match=f"localhost:{port}"):
        enroll(address, folder, TOKEN, trust=Trust(pins=("x",)), wait=waited.append)
    assert len(waited) == 3
    assert [path.name for path in folder.iterdir() if path.name != "lock"] == ["pending.key"]


@pytest.mark.parametrize("code", [TOKEN_USED, TOKEN_EXPIRED])
def test_a_refusal_says_what_the_gateway_said(act: Try, gateway: StandIn, code: str) -> None:
    gateway.enroll = lambda _: Problem(
        title=f"the token is {code}",
        status=403,
        detail="ask for: edgefleet device enroll",
        code=code,
    )
    with pytest.raises(AccessDeniedError, match=f"the token is {code}: ask for: edgefleet"):
        act()
    assert asked_of(gateway) == 1


def test_an_answer_for_another_key_makes_no_device(
    act: Try, gateway: StandIn, granting: Granting, tmp_path: Path
) -> None:
    elsewhere = IdentityFolder(tmp_path / "elsewhere").request()
    gateway.enroll = lambda _: granting.authority.grant(elsewhere)
    with pytest.raises(IntegrityError, match="a key that this device doesn't have"):
        act()
    assert not (tmp_path / "identity" / "identity.json").exists()


def test_a_broken_identity_is_replaced(act: Try, gateway: StandIn, tmp_path: Path) -> None:
    act()
    (tmp_path / "identity" / "identity.json").write_text("{")
    with pytest.raises(ConfigurationError, match="enrol the device again"):
        DeviceIdentity(tmp_path / "identity")
    with pytest.raises(AccessDeniedError, match="was used"):
        act()  # its key is lost with it
    enroll(gateway.address, tmp_path / "identity", "b" * 30, trust=Trust(pins=(pin(gateway),)))
    assert DeviceIdentity(tmp_path / "identity").identity.device == "cam-07"


@pytest.mark.parametrize(
    "address", ["http://gw:1", "https://", "https://gw/path", "https://u@gw", "https://gw:x", "gw"]
)
def test_what_is_no_gateway_is_not_asked(address: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not a gateway's address"):
        enroll(address, tmp_path, TOKEN, trust=Trust())


@pytest.mark.parametrize("text", ["", "sha256//", "sha256//abc", "sha1//" + "a" * 43 + "="])
def test_what_is_no_pin_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a pin"):
        pins_of(text)


def test_pins_are_read_as_curl_has_them() -> None:
    one, two = "a" * 43 + "=", "b" * 43 + "="
    assert pins_of(f"sha256//{one};sha256//{two}") == (one, two)


def run(monkeypatch: pytest.MonkeyPatch, text: str, *words: object) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return cli.main(["--verbose", "enroll", *map(str, words)])


def test_the_command_reads_its_token_and_shows_it_nowhere(
    gateway: StandIn,
    granting: Granting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ("--gateway", gateway.address, "--root", tmp_path, "--pin", f"sha256//{pin(gateway)}")
    assert run(monkeypatch, TOKEN + "\n", *words, "--label", "site=north") == 0
    assert run(monkeypatch, TOKEN, *words) == 0
    said = capfd.readouterr()
    assert "is now cam-07, in group line" in said.out
    assert "is already cam-07" in said.out
    assert DeviceIdentity(tmp_path / "identity").identity.device == "cam-07"
    assert granting.asked[0].labels == {"site": "north"}
    everything = said.out + said.err
    kept = [path.read_text() for path in (tmp_path / "identity").iterdir()]
    assert all(TOKEN not in text for text in (everything, *kept))


@pytest.mark.parametrize("text", ["", "short", "has spaces in it, so it is no token", "ü" * 30])
def test_the_command_refuses_what_is_no_token_without_repeating_it(
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--gateway", "https://localhost:1", "--root", tmp_path)
    assert run(monkeypatch, text, *words) == 1
    said = capsys.readouterr().err
    assert "no token" in said
    assert not text or text not in said


def test_the_command_takes_no_bytes_that_are_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xfeab" * 9), "utf-8"))
    words = ("--gateway", "https://localhost:1", "--root", str(tmp_path))
    assert cli.main(["--verbose", "enroll", *words]) == 1
    said = capsys.readouterr().err
    assert "no token" in said
    assert "xfe" not in said


def test_errors_of_first_contact_are_ours(act: Try, gateway: StandIn) -> None:
    gateway.only = ("POST", "")
    gateway.script = ["html"] * 8
    with pytest.raises(EdgeFleetError):
        act()
