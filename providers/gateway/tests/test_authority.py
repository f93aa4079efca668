"""The fleet's own authority: one a fleet, whose keys stay in a folder, and who believes what."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgefleet.errors import ConfigurationError, UnavailableError
from edgefleet.interfaces.state import StateStore
from edgefleet.protocol.documents import decode
from edgefleet_gateway.authority import KEPT_OTHERS, Authority, open_authority, rotate_authority
from edgefleet_gateway.certificates import pin
from edgefleet_gateway.records import AuthorityRecord, Keys
from edgefleet_local.state import DirectoryStateStore
from providers.gateway.tests.joining_rig import FLEET, START, Machine

KEYS = Keys("edgefleet")
LASTS = timedelta(days=90)
HOSTS = ("gw.example", "127.0.0.1", "::1")


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> object:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, store: DirectoryStateStore, clock: Clock) -> Authority:
    return opened(tmp_path / "keys", store, clock)


def opened(folder: Path, store: StateStore, clock: object, fleet: str = FLEET) -> Authority:
    return open_authority(folder, state=store, keys=KEYS, fleet=fleet, clock=clock)  # type: ignore[arg-type]


def published(store: StateStore) -> AuthorityRecord:
    stored = store.read(KEYS.authority)
    assert stored is not None
    return decode(AuthorityRecord, stored.data)


def parsed(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def keys_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("authority-*.key"))


def test_a_certificate_that_another_gateway_deletes_meanwhile_keeps_nobody_from_serving(
    tmp_path: Path, authority: Authority
) -> None:
    first = authority.serve(HOSTS).certificate
    gone = first.with_name(first.name.replace(first.stem[-16:], "0" * 16))
    gone.symlink_to(tmp_path / "nowhere")  # listed, and not there when it is looked at
    assert authority.serve(HOSTS).certificate.exists()
    assert first.exists()


# -------------------------------------------------------------------------------- certificates


def test_the_authority_signs_devices_and_gateways_but_no_authorities(authority: Authority) -> None:
    own = parsed(authority.believed)
    basic = own.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = own.extensions.get_extension_for_class(x509.KeyUsage)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (
        True,
        True,
        False,
    )
    key = own.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


def test_a_devices_certificate_is_for_clients_alone_and_begins_an_hour_ago(
    authority: Authority,
) -> None:
    issued = authority.issue("cam-07", Machine().key.public_key(), lasts=LASTS)
    found = parsed(issued.pem)
    uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(uses.value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"urn:edgefleet:{FLEET}:device:cam-07"
    ]
    assert found.subject.rfc4514_string() == "CN=cam-07"
    assert found.not_valid_before_utc == START - timedelta(hours=1)
    assert found.not_valid_after_utc == issued.certificate.ends == START + LASTS
    assert issued.certificate.serial == f"{found.serial_number:x}"
    found.verify_directly_issued_by(parsed(authority.believed))


def test_a_name_too_long_for_a_subject_is_in_the_extension_alone(authority: Authority) -> None:
    name = "x" * 128
    found = parsed(authority.issue(name, Machine().key.public_key(), lasts=LASTS).pem)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(found.subject) == []
    assert names.critical
    assert name in names.value.get_values_for_type(x509.UniformResourceIdentifier)[0]


def test_a_gateways_certificate_is_for_its_names_and_addresses(authority: Authority) -> None:
    files = authority.serve((*HOSTS, "bücher.example"))
    found = parsed(files.certificate.read_text())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gw.example", "xn--bcher-kva.example"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert authority.pins == (pin(found.public_key()),)  # type: ignore[arg-type]
    assert START < files.renew < files.ends == found.not_valid_after_utc


def test_a_gateways_certificate_made_anew_is_another_file_and_few_are_kept(
    tmp_path: Path, authority: Authority
) -> None:
    made = [authority.serve(HOSTS).certificate for _ in range(12)]
    authority.serve(["other.example"])
    assert len(set(made)) == 12
    kept = [path for path in made if path.exists()]
    assert len(kept) == 8
    assert made[-1] in kept


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """A handshake in memory, and a byte each way; raises what either side raises."""
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(one, two, server_hostname="gw.example"),
        server.wrap_bio(two, one, server_side=True),
    ]
    waiting = list(sides)
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    assert not waiting
    for writer, reader in (sides, reversed(sides)):
        writer.write(b"x")
        assert reader.read(1) == b"x"


def contexts(
    tmp_path: Path, authority: Authority, believed: str, device: str
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A device's settings and a gateway's."""
    machine = Machine()
    issued = authority.issue(device, machine.key.public_key(), lasts=LASTS)
    key = machine.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pair = tmp_path / "device.pem"
    pair.write_bytes(key + issued.pem.encode())
    files = authority.serve(HOSTS)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=believed)
    client.load_cert_chain(pair)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_verify_locations(cadata=authority.believed)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(files.certificate, files.key)
    for context in (client, server):  # the test's clock is none of theirs
        context.verify_flags |= 0x200000
    return client, server


def test_device_and_gateway_believe_each_other(tmp_path: Path, authority: Authority) -> None:
    shake_hands(*contexts(tmp_path, authority, authority.gateways_by, "cam-07"))


def test_a_device_is_no_gateway_and_a_gateway_no_device(
    tmp_path: Path, authority: Authority
) -> None:
    client, server = contexts(tmp_path, authority, authority.believed, "gw.example")
    files = authority.serve(HOSTS)
    server.load_cert_chain(tmp_path / "device.pem")
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        shake_hands(client, server)
    client, server = contexts(tmp_path, authority, authority.believed, "gw.example")
    client.load_cert_chain(files.certificate, files.key)
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        shake_hands(client, server)


# --------------------------------------------------------------------------- one a fleet


def test_keys_are_for_this_user_alone(tmp_path: Path, store: DirectoryStateStore) -> None:
    umask = os.umask(0)
    try:
        opened(tmp_path / "keys", store, Clock()).serve(HOSTS)
    finally:
        os.umask(umask)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_no_key_is_in_the_state_store(authority: Authority, home: Path) -> None:
    authority.issue("cam-07", Machine().key.public_key(), lasts=LASTS)
    kept = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert any(b"BEGIN CERTIFICATE" in data for data in kept)
    assert not any(b"PRIVATE" in data for data in kept)


def test_the_same_folder_gives_the_same_authority(
    tmp_path: Path, store: DirectoryStateStore, clock: Clock, authority: Authority
) -> None:
    again = opened(tmp_path / "keys", store, clock)
    assert (again.believed, again.pins) == (authority.believed, authority.pins)


_OPENS = """
import sys
from pathlib import Path
from edgefleet_gateway.authority import open_authority
from edgefleet_gateway.records import Keys
from edgefleet_local.state import DirectoryStateStore
sys.stdin.readline()
open_authority(
    Path(sys.argv[1]), state=DirectoryStateStore(Path(sys.argv[2])), keys=Keys("edgefleet"),
    fleet=sys.argv[3],
)
"""


def test_gateways_that_start_at_once_on_one_folder_end_with_one_authority(
    tmp_path: Path, home: Path, store: DirectoryStateStore
) -> None:
    words = [sys.executable, "-c", _OPENS, str(tmp_path / "keys"), str(home), FLEET]
    both = [subprocess.Popen(words, stdin=subprocess.PIPE) for _ in range(3)]
    for one in both:
        one.communicate(b"go\n")
    assert [one.returncode for one in both] == [0, 0, 0]
    assert len(keys_in(tmp_path / "keys")) == 1
    assert published(store).certificates.count("BEGIN") == 1


def test_a_gateway_that_comes_second_is_told_where_the_key_is(
    tmp_path: Path, store: DirectoryStateStore, authority: Authority, clock: Clock
) -> None:
    with pytest.raises(ConfigurationError, match="lacks the key") as caught:
        opened(tmp_path / "elsewhere", store, clock)
    assert str(tmp_path / "keys") in str(caught.value)
    assert keys_in(tmp_path / "elsewhere") == []
    assert published(store).certificates == authority.believed


def test_of_two_folders_that_race_one_wins_and_the_other_leaves_no_key(
    tmp_path: Path, store: DirectoryStateStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first look of the second finds nothing, and then the first is faster.
    read, looks = store.read, 0

    def late(key: str) -> object:
        nonlocal looks
        looks += 1
        if looks == 1:
            found = read(key)
            monkeypatch.setattr(store, "read", read)
            opened(tmp_path / "first", store, clock)
            return found
        return read(key)

    monkeypatch.setattr(store, "read", late)
    with pytest.raises(ConfigurationError, match="lacks the key"):
        opened(tmp_path / "second", store, clock)
    assert len(keys_in(tmp_path / "first")) == 1
    assert keys_in(tmp_path / "second") == []


def test_a_copied_folder_serves_with_the_same_key(
    tmp_path: Path, store: DirectoryStateStore, authority: Authority, clock: Clock
) -> None:
    import shutil

    shutil.copytree(tmp_path / "keys", tmp_path / "copied")
    second = opened(tmp_path / "copied", store, clock)
    assert second.pins == authority.pins
    issued = second.issue("cam-07", Machine().key.public_key(), lasts=LASTS)
    parsed(issued.pem).verify_directly_issued_by(parsed(authority.believed))


def test_killed_before_it_was_published_the_same_key_is_published_next(
    tmp_path: Path, store: DirectoryStateStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store, "update", dies)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path / "keys", store, clock)
    (before,) = keys_in(tmp_path / "keys")
    opened(tmp_path / "keys", store, clock)
    assert keys_in(tmp_path / "keys") == [before]


def test_a_lost_document_is_published_again_from_the_folder(
    tmp_path: Path, store: DirectoryStateStore, clock: Clock, authority: Authority
) -> None:
    stored = store.read(KEYS.authority)
    assert stored is not None
    store.delete(KEYS.authority, expect=stored.tag)
    assert opened(tmp_path / "keys", store, clock).believed == authority.believed


def test_a_folder_of_another_fleet_is_refused(
    tmp_path: Path, authority: Authority, clock: Clock
) -> None:
    other = DirectoryStateStore(tmp_path / "other")
    with pytest.raises(ConfigurationError, match=f"of the fleet {FLEET}"):
        opened(tmp_path / "keys", other, clock, FLEET.replace("6", "7"))
    assert other.read(KEYS.authority) is None
    assert authority.fleet == FLEET


def test_a_key_that_others_may_read_is_refused(
    tmp_path: Path, store: DirectoryStateStore, authority: Authority, clock: Clock
) -> None:
    (key,) = keys_in(tmp_path / "keys")
    key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        opened(tmp_path / "keys", store, clock)
    key.chmod(0o440)  # as a mounted secret has it
    assert opened(tmp_path / "keys", store, clock).believed == authority.believed


def test_a_broken_key_is_named(
    tmp_path: Path, store: DirectoryStateStore, authority: Authority, clock: Clock
) -> None:
    (key,) = keys_in(tmp_path / "keys")
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ConfigurationError, match="restore the folder"):
        opened(tmp_path / "keys", store, clock)
    assert authority.believed == published(store).certificates


# ------------------------------------------------------------------------------ its own time


def test_before_it_began_and_after_it_ended_nothing_is_signed(
    authority: Authority, clock: Clock
) -> None:
    own, key = parsed(authority.believed), Machine().key.public_key()
    clock.now = own.not_valid_before_utc - timedelta(seconds=1)
    with pytest.raises(UnavailableError, match="set the clock"):
        authority.issue("cam-07", key, lasts=LASTS)
    clock.now = own.not_valid_after_utc
    with pytest.raises(ConfigurationError, match="rotate-authority"):
        authority.issue("cam-07", key, lasts=LASTS)
    clock.now -= timedelta(days=1)
    issued = authority.issue("cam-07", key, lasts=LASTS)
    assert issued.certificate.ends == own.not_valid_after_utc


# ------------------------------------------------------------------------------- rotation


def rotated(tmp_path: Path, store: StateStore, clock: Clock, *, keep: bool = True) -> Authority:
    clock.now += timedelta(days=365)
    return rotate_authority(
        tmp_path / "keys",
        state=store,
        keys=KEYS,
        fleet=FLEET,
        clock=clock,  # type: ignore[arg-type]
        keep=keep,
    )


def test_after_a_rotation_the_new_signs_and_the_old_is_believed(
    tmp_path: Path, store: DirectoryStateStore, clock: Clock, authority: Authority
) -> None:
    before, pins = authority.believed, authority.pins
    key = Machine().key.public_key()
    assert authority.reload() is False
    rotated(tmp_path, store, clock)
    assert authority.reload() is True  # a gateway that runs
    new, old = x509.load_pem_x509_certificates(authority.believed.encode())
    assert old == parsed(before)
    parsed(authority.issue("cam-07", key, lasts=LASTS).pem).verify_directly_issued_by(new)
    assert authority.pins == pins


def test_after_a_rotation_a_device_that_was_away_believes_the_gateway(
    tmp_path: Path, store: DirectoryStateStore, clock: Clock, authority: Authority
) -> None:
    before = authority.believed
    after = rotated(tmp_path, store, clock)
    shake_hands(*contexts(tmp_path, after, before, "cam-07"))
    shake_hands(*contexts(tmp_path, after, after.gateways_by, "cam-08"))


def test_a_rotation_away_from_a_stolen_key_leaves_nothing_of_it(
    tmp_path: Path, store: DirectoryStateStore, clock: Clock, authority: Authority
) -> None:
    before = authority.believed
    after = rotated(tmp_path, store, clock, keep=False)
    assert after.believed.count("BEGIN") == 1
    assert not set(after.pins) & set(authority.pins)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(*contexts(tmp_path, after, before, "cam-07"))


def test_a_rotation_needs_no_old_key(
    tmp_path: Path, store: DirectoryStateStore, clock: Clock, authority: Authority
) -> None:
    before = authority.believed
    for path in keys_in(tmp_path / "keys"):
        path.unlink()
    with pytest.raises(ConfigurationError, match="lacks the key"):
        opened(tmp_path / "keys", store, clock)
    after = rotated(tmp_path, store, clock)
    assert after.believed.endswith(before)  # devices' certificates go on counting
    files = after.serve(HOSTS)
    parsed(files.certificate.read_text()).verify_directly_issued_by(
        x509.load_pem_x509_certificates(after.believed.encode())[0]
    )


# -------------------------------------------------------------- certificates of somebody else


def test_what_a_gateway_of_another_authority_needs_is_told_to_devices_alone(
    store: DirectoryStateStore, authority: Authority
) -> None:
    own, other = authority.believed, public_authority(1)
    authority.publish(pins=("cGlu",), others=other)
    authority.publish(pins=("cGlu",))
    assert authority.believed == own  # it signs no devices
    assert authority.gateways_by == own + other
    assert authority.pins[0] == "cGlu"
    assert len(authority.pins) == 2
    assert published(store).others == other


def test_gateways_of_several_other_authorities_are_all_told_of_the_last_few(
    store: DirectoryStateStore, authority: Authority
) -> None:
    others = [public_authority(number) for number in range(KEPT_OTHERS + 1)]
    for number in (1, 0, 1):  # as gateways start again
        authority.publish(others=others[number])
    assert published(store).others == others[1] + others[0]
    for one in others:
        authority.publish(others=one)
    assert published(store).others == "".join(reversed(others[1:]))


def public_authority(number: int) -> str:
    """The certificate of one, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Public {number}")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    built = built.public_key(key.public_key()).serial_number(number + 1)
    built = built.not_valid_before(START).not_valid_after(START + LASTS)
    return built.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
