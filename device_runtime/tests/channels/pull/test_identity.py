"""A device's identity on its disk: made here, replaced whole, renewed in time."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import msgspec
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from device_runtime.tests.channels.pull.small_authority import BEGINS, SmallAuthority
from device_runtime.tests.channels.pull.standin import StandIn, serving
from edgefleet.errors import ConfigurationError, IntegrityError, MissingExtraError
from edgefleet.protocol.documents import encode
from edgefleet_runtime import faults
from edgefleet_runtime.channels.pull import identity, keys
from edgefleet_runtime.channels.pull.identity import DeviceIdentity, IdentityFolder


@pytest.fixture(scope="module")
def authority() -> SmallAuthority:
    return SmallAuthority()


def joined(folder: Path, authority: SmallAuthority) -> DeviceIdentity:
    """A device that was enrolled."""
    files = IdentityFolder(folder)
    files.take(authority.grant(files.request()), token="mark")
    return DeviceIdentity(folder)


def key_of(request: str) -> ec.EllipticCurvePublicKey:
    key = x509.load_pem_x509_csr(request.encode()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def test_keys_are_for_this_user_alone(tmp_path: Path, authority: SmallAuthority) -> None:
    umask = os.umask(0)
    try:
        joined(tmp_path / "id", authority).renewal()
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "id").iterdir()}
    assert len(modes) == 4  # identity.json, the pair, the pending key, the lock
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "id").stat().st_mode) == 0o700


def test_a_request_names_nobody_and_holds_no_key(tmp_path: Path) -> None:
    text = IdentityFolder(tmp_path).request()
    assert list(x509.load_pem_x509_csr(text.encode()).subject) == []
    assert "PRIVATE" not in text


def test_a_request_is_for_the_same_key_until_an_answer_came(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    files = IdentityFolder(tmp_path)
    first, again = files.request(), IdentityFolder(tmp_path).request()
    assert key_of(first) == key_of(again)
    files.take(authority.grant(first))
    assert key_of(files.request()) != key_of(first)


def test_an_identity_says_what_was_answered(tmp_path: Path, authority: SmallAuthority) -> None:
    identity = joined(tmp_path, authority).identity
    assert (identity.device, identity.group) == ("cam-07", "line")
    assert identity.gateways == ("https://gw.example:8443",)
    assert identity.authorities == authority.pem


def test_the_context_believes_the_fleets_authorities_alone(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    known = joined(tmp_path, authority)
    context = known.context()
    assert len(context.get_ca_certs()) == 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert known.context() is context


def test_a_gateways_authority_may_be_one_that_another_signed(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    root = trustme.CA()
    below = root.create_child_ca()
    files = IdentityFolder(tmp_path)
    granted = authority.grant(files.request())
    believed = authority.pem + below.cert_pem.bytes().decode()
    files.take(msgspec.structs.replace(granted, authorities=believed))
    for serves, fits in ((below, True), (root, False)):
        with serving(StandIn(serves)) as server:
            near = socket.create_connection(("localhost", server.server_port))
            context = DeviceIdentity(tmp_path).context()
            with near, suppress(ssl.SSLCertVerificationError):
                context.wrap_socket(near, server_hostname="localhost").close()
                assert fits
                continue
            assert not fits


def test_a_device_in_use_loads_no_cryptography(tmp_path: Path, authority: SmallAuthority) -> None:
    joined(tmp_path, authority)
    code = (
        "import sys; from pathlib import Path\n"
        "from edgefleet_runtime.channels.pull.identity import DeviceIdentity\n"
        "known = DeviceIdentity(Path(sys.argv[1])); known.context(); known.renewal_due(0)\n"
        "sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == 0


def test_without_the_extra_a_key_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgefleet_runtime.channels import pull

    monkeypatch.delattr(pull, "keys", raising=False)
    monkeypatch.setitem(sys.modules, f"{pull.__name__}.keys", None)
    with pytest.raises(MissingExtraError, match=r"edgefleet-runtime\[pull\]"):
        IdentityFolder(tmp_path).request()


def test_a_third_before_the_end_a_renewal_is_due(tmp_path: Path, authority: SmallAuthority) -> None:
    known = joined(tmp_path, authority)
    due = BEGINS + timedelta(days=60)
    assert not known.renewal_due((due - timedelta(seconds=1)).timestamp())
    assert known.renewal_due(due.timestamp())


def test_a_renewal_brings_a_new_key(tmp_path: Path, authority: SmallAuthority) -> None:
    known = joined(tmp_path, authority)
    before, context = known.identity.certificate, known.context()
    known.renewed(encode(authority.renew(known.renewal(), begins=BEGINS + timedelta(days=61))))
    assert known.context() is not context
    old, new = (
        x509.load_pem_x509_certificate(text.encode()).public_key()
        for text in (before, known.identity.certificate)
    )
    assert old != new
    assert not known.renewal_due((BEGINS + timedelta(days=61)).timestamp())
    assert DeviceIdentity(tmp_path).identity == known.identity


def test_renewals_at_once_leave_one_identity_that_works(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    joined(tmp_path, authority)
    start = Barrier(2)

    def renew(process: DeviceIdentity) -> str:
        asked = process.renewal()
        start.wait()
        answer = authority.renew(asked, begins=BEGINS + timedelta(days=61))
        process.renewed(encode(answer))
        return answer.certificate

    both = [DeviceIdentity(tmp_path), DeviceIdentity(tmp_path)]
    with ThreadPoolExecutor(2) as pool:
        given = list(pool.map(renew, both))
    held = DeviceIdentity(tmp_path)  # whose key fits its certificate, or this raises
    assert held.identity.certificate in given
    assert {process.identity.certificate for process in both} == {held.identity.certificate}


def test_an_answer_that_is_not_for_this_device_is_refused(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    known = joined(tmp_path, authority)
    before = known.identity
    request = IdentityFolder(tmp_path).request()
    other_key = IdentityFolder(tmp_path / "elsewhere").request()
    forged = SmallAuthority().grant(request).certificate

    for answer, what in (
        (authority.grant(other_key), "for a key that this device doesn't have"),
        (authority.grant(request, "cam-08"), "as to cam-08"),
        (authority.grant(request, named="cam-08"), "isn't that of cam-07"),
        (
            msgspec.structs.replace(authority.grant(request), certificate=forged),
            "none of the fleet's authorities",
        ),
        (
            msgspec.structs.replace(authority.grant(request), certificate="nonsense"),
            "no certificate of a device",
        ),
    ):
        with pytest.raises(IntegrityError, match=what):
            known.renewed(encode(answer))
    assert known.identity == before
    assert DeviceIdentity(tmp_path).identity == before


def enrolled_as_another(folder: Path, authority: SmallAuthority) -> None:
    """Have another process enrol the device as ``cam-08``."""
    files = IdentityFolder(folder)
    files.take(authority.grant(files.request(), "cam-08"), token="another")


def test_what_another_process_enrols_is_noticed(tmp_path: Path, authority: SmallAuthority) -> None:
    running = joined(tmp_path, authority)
    before = running.context()
    again = joined(tmp_path, authority)
    assert running.identity == again.identity
    assert running.context() is not before


def test_an_identity_that_is_gone_is_held_on_to(tmp_path: Path, authority: SmallAuthority) -> None:
    running = joined(tmp_path, authority)
    before = running.identity
    (tmp_path / "identity.json").unlink()
    assert running.identity == before
    with pytest.raises(ConfigurationError, match="edgefleet device enroll"):
        DeviceIdentity(tmp_path)


def test_a_running_device_does_not_become_another(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    running = joined(tmp_path, authority)
    context = running.context()
    enrolled_as_another(tmp_path, authority)
    assert running.identity.device == "cam-07"
    assert running.context() is context
    assert DeviceIdentity(tmp_path).identity.device == "cam-08"


def test_a_signature_is_the_keys(tmp_path: Path, authority: SmallAuthority) -> None:
    known = joined(tmp_path, authority)
    key = x509.load_pem_x509_certificate(known.identity.certificate.encode()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(known.sign(b"receipt"), b"receipt", ec.ECDSA(hashes.SHA256()))


_TAKES = """
import sys
from pathlib import Path
from edgefleet.protocol.documents import decode
from edgefleet.protocol.gateway import Identity
from edgefleet_runtime.channels.pull.identity import IdentityFolder
files = IdentityFolder(Path(sys.argv[1]))
answer = Path(sys.argv[2])
if answer.exists():
    files.take(decode(Identity, answer.read_bytes()))
else:
    answer.with_suffix(".request").write_text(files.request())
"""


def run(folder: Path, answer: Path, *, dies_at: str = "") -> int:
    """Take an answer, or make a request, in a process that may be killed at a point."""
    return subprocess.run(
        [sys.executable, "-c", _TAKES, str(folder), str(answer)],
        env={**os.environ, faults.VARIABLE: dies_at},
        check=False,
    ).returncode


def test_killed_anywhere_a_device_is_who_it_was_or_who_it_became(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    folder, answer = tmp_path / "id", tmp_path / "answer"
    before = joined(folder, authority).identity
    deaths = 0
    for step in range(1, 20):
        known = DeviceIdentity(folder)
        was = known.identity
        became = authority.renew(known.renewal(), begins=BEGINS + timedelta(days=step))
        answer.write_bytes(encode(became))
        died = run(folder, answer, dies_at=f"*:{step}") != 0
        now = DeviceIdentity(folder).identity  # loads key and certificate, or raises
        assert now.certificate in {was.certificate, became.certificate}
        if not died:
            assert now.certificate == became.certificate
            break
        deaths += 1
    assert deaths == 4  # two files, each before and after its renaming
    assert before.device == DeviceIdentity(folder).identity.device


def test_killed_while_a_key_is_made_the_next_try_goes_on(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    folder, answer = tmp_path / "id", tmp_path / "answer"
    assert run(folder, answer, dies_at="pending.key.written") != 0
    assert run(folder, answer, dies_at="pending.key.renamed") != 0
    key = (folder / "pending.key").read_bytes()
    assert run(folder, answer) == 0
    assert (folder / "pending.key").read_bytes() == key
    answer.write_bytes(encode(authority.grant(answer.with_suffix(".request").read_text())))
    assert run(folder, answer) == 0
    assert DeviceIdentity(folder).identity.device == "cam-07"


def test_a_key_that_the_disk_spoiled_is_made_anew(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    known = joined(tmp_path, authority)
    known.renewal()
    (tmp_path / "pending.key").write_bytes(b"\0" * 241)
    known.renewed(encode(authority.renew(known.renewal(), begins=BEGINS + timedelta(days=61))))
    assert DeviceIdentity(tmp_path).identity == known.identity


def test_a_spoiled_key_hides_no_other(tmp_path: Path, authority: SmallAuthority) -> None:
    known = joined(tmp_path, authority)
    kept = IdentityFolder(tmp_path).kept()
    assert kept is not None
    key = IdentityFolder(tmp_path).key_file(kept).read_bytes()
    again = authority.grant(keys.request_for(key))
    (tmp_path / "pending.key").write_bytes(b"spoiled")
    known.renewed(encode(again))
    assert known.identity.certificate == again.certificate


@pytest.mark.parametrize("what", ["authorities", "certificate"])
def test_an_answer_that_tls_does_not_take_changes_nothing(
    tmp_path: Path, authority: SmallAuthority, what: str
) -> None:
    known = joined(tmp_path, authority)
    before, files = known.identity, sorted(tmp_path.glob("*.pem"))
    answer = authority.renew(known.renewal(), begins=BEGINS + timedelta(days=61))
    broken = {
        "authorities": f"für die Flotte\n{answer.authorities}",  # PEM, and no ASCII
        "certificate": f"{answer.certificate}-----BEGIN CERTIFICATE-----\nMAA=\n",
    }[what]
    with pytest.raises(IntegrityError):
        known.renewed(encode(msgspec.structs.replace(answer, **{what: broken})))
    assert known.identity == DeviceIdentity(tmp_path).identity == before
    assert sorted(tmp_path.glob("*.pem")) == files
    known.renewed(encode(answer))


def test_a_broken_answer_for_the_certificate_in_use_leaves_that_as_it_is(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    known = joined(tmp_path, authority)
    broken = f"{known.identity.certificate}-----BEGIN CERTIFICATE-----\nMAA=\n"
    with pytest.raises(IntegrityError):
        known.renewed(encode(msgspec.structs.replace(known.identity, certificate=broken)))
    assert DeviceIdentity(tmp_path).identity == known.identity


def test_a_renewal_does_not_undo_what_another_process_enrolled(
    tmp_path: Path, authority: SmallAuthority
) -> None:
    running = joined(tmp_path, authority)
    asked = running.renewal()
    enrolled_as_another(tmp_path, authority)
    with pytest.raises(IntegrityError, match="restart the runtime"):
        running.renewed(encode(authority.renew(asked, begins=BEGINS + timedelta(days=61))))
    assert DeviceIdentity(tmp_path).identity.device == "cam-08"


def test_a_disk_that_fails_is_one_of_our_errors(
    tmp_path: Path, authority: SmallAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = joined(tmp_path, authority)

    def failing(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(identity, "write_durably", failing)
    with pytest.raises(ConfigurationError, match="Input/output error"):
        known.renewal()
