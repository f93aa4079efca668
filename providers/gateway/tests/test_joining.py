"""Devices join, renew and are refused: every attack on a name is tried here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from edgefleet.errors import UnavailableError
from edgefleet.plugins.provider import Context
from edgefleet.protocol.documents import encode
from edgefleet.protocol.gateway import (
    EXPIRED,
    REVOKED,
    TOKEN_EXPIRED,
    TOKEN_UNKNOWN,
    TOKEN_USED,
    UNKNOWN,
    Enrolment,
)
from edgefleet.testing.kit import samples
from edgefleet_gateway.deployer import GatewayDeployer
from edgefleet_gateway.joining import RefusedError
from edgefleet_gateway.records import DeviceRecord, ReportRecord
from providers.gateway.tests.joining_rig import FLEET, START, Machine, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, addresses=("https://gw.example:8443",))


def refusal(act: Callable[[], object]) -> tuple[str, int]:
    """The code and status of a refusal, which must come."""
    with pytest.raises(RefusedError) as caught:
        act()
    return caught.value.problem.code, caught.value.problem.status


def test_a_device_that_was_invited_gets_a_certificate_that_counts(rig: Rig) -> None:
    token = rig.invite("cam-07")
    identity = rig.joining.enroll(Machine().enrolment(token, target="raspberry-pi-5"))
    assert (identity.device, identity.group, identity.fleet) == ("cam-07", "line", FLEET)
    assert identity.gateways == ("https://gw.example:8443",)
    assert identity.authorities == rig.authority.believed
    assert rig.counts(rig.said(identity))
    assert rig.record("cam-07").said == {"target": "raspberry-pi-5"}
    assert rig.roster.bell().changes[-1][1] == "device/cam-07"


def test_a_lost_answer_may_be_asked_for_again_with_the_same_key(rig: Rig) -> None:
    machine, token = Machine(), rig.invite("cam-07")
    first = rig.joining.enroll(machine.enrolment(token))
    rig.now += timedelta(days=2)  # long after the token ended
    again = rig.joining.enroll(machine.enrolment(token))
    assert again == first


def test_a_token_is_refused_for_a_second_key(rig: Rig) -> None:
    token = rig.invite("cam-07")
    first = rig.said(rig.joining.enroll(Machine().enrolment(token)))
    assert refusal(lambda: rig.joining.enroll(Machine().enrolment(token))) == (TOKEN_USED, 403)
    assert [one.serial for one in rig.record("cam-07").certificates] == [first.serial]


def test_of_machines_that_race_with_one_token_one_gets_it(rig: Rig) -> None:
    token, machines, start = rig.invite("cam-07"), [Machine() for _ in range(4)], Barrier(4)

    def race(machine: Machine) -> str:
        start.wait()
        try:
            return rig.said(rig.joining.enroll(machine.enrolment(token))).serial
        except RefusedError as error:
            return error.problem.code

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(race, machines))
    assert outcomes.count(TOKEN_USED) == 3
    (serial,) = [one for one in outcomes if one != TOKEN_USED]
    assert [one.serial for one in rig.record("cam-07").certificates] == [serial]


def test_a_token_that_ended_or_that_nobody_made_is_refused(rig: Rig) -> None:
    token = rig.invite("cam-07")
    rig.now += timedelta(hours=1, seconds=1)
    assert refusal(lambda: rig.joining.enroll(Machine().enrolment(token))) == (TOKEN_EXPIRED, 403)
    made_up = Machine().enrolment("a-token-that-nobody-made")
    assert refusal(lambda: rig.joining.enroll(made_up)) == (TOKEN_UNKNOWN, 403)
    assert rig.record("cam-07").certificates == ()


def test_a_newer_invitation_ends_the_older_one(rig: Rig) -> None:
    older = rig.invite("cam-07", token="o" * 30)
    newer = rig.invite("cam-07", token="n" * 30)
    assert refusal(lambda: rig.joining.enroll(Machine().enrolment(older)))[0] == TOKEN_UNKNOWN
    assert rig.counts(rig.said(rig.joining.enroll(Machine().enrolment(newer))))


def test_a_name_in_the_request_is_no_name(rig: Rig) -> None:
    victim = rig.join("cam-01")
    thief = Machine(called="cam-01")
    identity = rig.joining.enroll(thief.enrolment(rig.invite("cam-02")))
    assert rig.said(identity).device == "cam-02"
    assert [one.serial for one in rig.record("cam-01").certificates] == [victim.serial]
    certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=cam-02"


def test_an_enrolment_played_again_takes_no_name_back(rig: Rig) -> None:
    old, new = Machine(), Machine()
    captured = old.enrolment(rig.invite("cam-07", token="o" * 30))
    before = rig.said(rig.joining.enroll(captured))
    token = rig.invite("cam-07", token="n" * 30)
    assert rig.counts(before)  # until the new one comes
    # Before the new machine came, too, the old request has no effect any more.
    assert refusal(lambda: rig.joining.enroll(captured))[0] == TOKEN_USED
    after = rig.said(rig.joining.enroll(new.enrolment(token)))
    assert refusal(lambda: rig.joining.enroll(captured))[0] == TOKEN_USED
    assert not rig.counts(before)
    assert rig.counts(after)


def test_an_enrolment_played_again_after_a_renewal_changes_nothing(rig: Rig) -> None:
    machine = Machine()
    captured = machine.enrolment(rig.invite("cam-07"))
    first = rig.said(rig.joining.enroll(captured))
    second = rig.renew(first)
    rig.joining.settle("cam-07", second.serial)
    assert refusal(lambda: rig.joining.enroll(captured))[0] == TOKEN_USED
    assert [one.serial for one in rig.record("cam-07").certificates] == [second.serial]


def test_a_retired_devices_token_makes_nothing(rig: Rig) -> None:
    token = rig.invite("cam-07")
    rig.roster.retire("cam-07")
    assert refusal(lambda: rig.joining.enroll(Machine().enrolment(token)))[0] == TOKEN_UNKNOWN
    assert rig.roster.find("cam-07") is None


def tampered() -> str:
    """A request whose key was put in place of the one that signed it."""
    der = bytearray(x509.load_pem_x509_csr(Machine().request().encode()).public_bytes(Encoding.DER))
    other = Machine().key.public_key().public_numbers()
    at = der.index(b"\x03\x42\x00\x04") + 4
    der[at : at + 64] = other.x.to_bytes(32) + other.y.to_bytes(32)
    return x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()


def weak(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, digest: hashes.HashAlgorithm) -> str:
    built = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return built.sign(key, digest).public_bytes(Encoding.PEM).decode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "request_pem",
    [
        tampered(),
        weak(rsa.generate_private_key(65537, 1024), hashes.SHA256()),
        weak(ec.generate_private_key(ec.SECP224R1()), hashes.SHA256()),
        weak(ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()),
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "",
        "ünïcode",
    ],
    ids=["tampered", "rsa-1024", "p-224", "secp256k1", "garbage", "empty", "not-ascii"],
)
def test_a_request_that_proves_nothing_is_refused_and_uses_no_token(
    rig: Rig, request_pem: str
) -> None:
    token = rig.invite("cam-07")
    asked = Enrolment(token=token, request=request_pem)
    assert refusal(lambda: rig.joining.enroll(asked)) == ("", 400)
    assert rig.counts(rig.said(rig.joining.enroll(Machine().enrolment(token))))


@pytest.mark.parametrize(
    "labels",
    [
        {str(i): "" for i in range(33)},
        {"k" * 64: "v"},
        {"k": "v" * 256},
        {"": "v"},
        {"a=b": "v"},
        {"k": "line\nbreak"},
    ],
    ids=["many", "long-key", "long-value", "no-key", "equals", "control"],
)
def test_labels_beyond_their_limits_are_refused(rig: Rig, labels: dict[str, str]) -> None:
    asked = Machine().enrolment(rig.invite("cam-07"), **labels)
    assert refusal(lambda: rig.joining.enroll(asked)) == ("", 400)


def test_a_renewal_counts_beside_the_one_before_until_it_was_shown(rig: Rig) -> None:
    first = rig.join("cam-07")
    rig.now += timedelta(days=61)
    second = rig.renew(first)
    assert second.ends > first.ends
    assert rig.counts(first)
    assert rig.counts(second)
    rig.joining.settle("cam-07", first.serial)  # it was in the air already
    assert rig.counts(second)
    rig.joining.settle("cam-07", second.serial)
    assert rig.counts(second)
    assert not rig.counts(first)


def test_a_device_that_loses_answers_keeps_what_it_has(rig: Rig) -> None:
    first = rig.join("cam-07")
    given = [rig.renew(first) for _ in range(9)]
    assert rig.counts(first)
    assert len(rig.record("cam-07").certificates) == 4
    assert [rig.counts(one) for one in given[-3:]] == [True, True, True]


def test_renewals_at_once_all_count(rig: Rig) -> None:
    first, start = rig.join("cam-07"), Barrier(2)

    def renew(machine: Machine) -> bool:
        start.wait()
        return rig.counts(rig.renew(first, machine))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(renew, [Machine(), Machine()])) == [True, True]


def test_a_certificate_that_ended_renews_for_a_while(rig: Rig) -> None:
    first = rig.join("cam-07")
    rig.now = first.ends + timedelta(days=365)
    assert rig.counts(rig.renew(first))
    rig.now = first.ends + timedelta(days=365, seconds=1)
    assert refusal(lambda: rig.renew(first)) == (EXPIRED, 403)


def test_a_revoked_certificate_renews_no_more(rig: Rig) -> None:
    first = rig.join("cam-07")
    rig.roster.change("cam-07", lambda there: msgspec.structs.replace(there, revoked=True))
    assert refusal(lambda: rig.renew(first)) == (REVOKED, 403)
    assert not rig.counts(first)


def test_a_machine_in_anothers_place_has_reported_nothing_yet(rig: Rig) -> None:
    """If it had, what the old machine attested would be believed of the new one."""
    rig.join("cam-07")
    before = rig.record("cam-07")
    says(rig, before)
    asked = Machine().enrolment(rig.invite("cam-07", token="n" * 30))
    assert attested(rig, "cam-07")  # until the new one comes
    rig.joining.enroll(asked)
    assert not attested(rig, "cam-07")
    says(rig, before)  # by a gateway that was about to write it down
    assert not attested(rig, "cam-07")
    says(rig, rig.record("cam-07"))
    rig.joining.enroll(asked)  # played again
    assert attested(rig, "cam-07")


def test_killed_while_another_machine_joins_its_report_is_not_the_one_before(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.join("cam-07")
    says(rig, rig.record("cam-07"))
    asked = Machine().enrolment(rig.invite("cam-07", token="n" * 30))

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rig.roster, "ring", dies)  # when the record is written
        with pytest.raises(KeyboardInterrupt):
            rig.joining.enroll(asked)
    assert not attested(rig, "cam-07")
    rig.joining.enroll(asked)  # as the device asks again
    assert not attested(rig, "cam-07")


def test_a_first_report_on_a_stick_counts_whatever_the_machine_before_said(rig: Rig) -> None:
    rig.join("cam-07")
    says(rig, rig.record("cam-07"), sequence=9)
    rig.joining.enroll(Machine().enrolment(rig.invite("cam-07", token="n" * 30)))
    deployer = operator(rig)
    assert deployer.take_report("cam-07", samples.report(sequence=1).encoded())
    assert attested(rig, "cam-07")
    assert not deployer.take_report("cam-07", samples.report(sequence=1).encoded())


def says(rig: Rig, machine: DeviceRecord, *, sequence: int = 1) -> None:
    """A gateway keeps a report of the machine that had that record."""
    report = samples.report(sequence=sequence).encoded()
    said = ReportRecord(report=report, came=START, machine=machine.machine)
    rig.state.update(rig.keys.report("cam-07"), lambda _: encode(said))


def attested(rig: Rig, device: str) -> bool:
    """Whether operators see a report of a device."""
    found = operator(rig).device(device)
    assert found is not None
    return found.report is not None


def operator(rig: Rig) -> GatewayDeployer:
    context = Context(base=rig.folder, name="gateway", state=lambda: rig.state)
    return GatewayDeployer(rig.settings, context, clock=rig.clock)


def test_a_replaced_machines_certificate_renews_no_more(rig: Rig) -> None:
    first = rig.join("cam-07")
    rig.joining.enroll(Machine().enrolment(rig.invite("cam-07", token="n" * 30)))
    assert refusal(lambda: rig.renew(first)) == (REVOKED, 403)


def test_a_retired_devices_certificate_renews_no_more(rig: Rig) -> None:
    first = rig.join("cam-07")
    rig.roster.retire("cam-07")
    assert refusal(lambda: rig.renew(first)) == (UNKNOWN, 403)
    rig.roster.enroll("cam-07", "line", {})  # another one of that name
    assert refusal(lambda: rig.renew(first)) == (REVOKED, 403)


def test_a_gateway_whose_clock_is_years_behind_gives_nothing(rig: Rig) -> None:
    token = rig.invite("cam-07")
    rig.now = START - timedelta(days=3650)
    with pytest.raises(UnavailableError, match="set the clock of this gateway"):
        rig.joining.enroll(Machine().enrolment(token))
    rig.now = START
    assert rig.counts(rig.said(rig.joining.enroll(Machine().enrolment(token))))


def test_a_gateway_whose_clock_was_years_ahead_locks_nobody_out(rig: Rig) -> None:
    first = rig.join("cam-07")
    rig.now += timedelta(days=3650)
    assert refusal(lambda: rig.renew(first))[0] == EXPIRED
    rig.now = START
    assert rig.counts(first)
    assert rig.counts(rig.renew(first))


def test_killed_between_the_token_and_the_device_the_same_request_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Machine().enrolment(rig.invite("cam-07"))

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rig.roster, "change", dies)
        with pytest.raises(KeyboardInterrupt):
            rig.joining.enroll(asked)
    assert rig.record("cam-07").certificates == ()
    assert rig.counts(rig.said(rig.joining.enroll(asked)))
