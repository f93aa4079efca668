"""What a gateway refuses, tried over real sockets."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import HealthEvent, new_event
from edgefleet.protocol.gateway import digest_field
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.server.running import Serving
from providers.gateway.tests.exchanges import EVENTS, JSON, REPORT, SEGMENT, patch
from providers.gateway.tests.joining_rig import FLEET, Machine
from providers.gateway.tests.server_rig import Client, Fleet

# Who


def test_without_a_certificate_nothing_of_a_device_is_given(fleet: Fleet, gateway: Serving) -> None:
    stranger = fleet.stranger(gateway)
    for method, path in (
        ("GET", "/v1/pointer"),
        ("GET", f"/v1/blobs/sha256/{'a' * 64}"),
        ("PUT", "/v1/report"),
        ("POST", "/v1/events"),
        ("PATCH", f"/v1/files/{SEGMENT}"),
        ("GET", "/v1/requests"),
        ("PUT", f"/v1/answers/{'a' * 32}"),
        ("GET", "/v1/runtime"),
        ("POST", "/v1/renew"),
    ):
        answer = stranger.ask(method, path, b"{}" if method != "GET" else None, JSON)
        assert answer.problem()["status"] == 401, path


def forged(folder: Path, *, issuer: str) -> Path:
    """A certificate for cam-1 of this fleet, by an authority that merely calls itself the same."""
    authority, key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    name = x509.Name.from_rfc4514_string(issuer)
    now = datetime.now(UTC)

    def begun(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(public)
            .serial_number(7)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    urn = x509.UniformResourceIdentifier(f"urn:edgefleet:{FLEET}:device:cam-1")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cam-1")])
    certificate = (
        begun(subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName([urn]), critical=False)
        .sign(authority, hashes.SHA256())
    )
    file = folder / "forged.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    return file


def test_a_certificate_of_a_foreign_authority_gets_no_connection(
    fleet: Fleet, gateway: Serving, device: Client, tmp_path: Path
) -> None:
    own = x509.load_pem_x509_certificate(fleet.rig.authority.believed.encode())
    context = fleet.context()
    context.load_cert_chain(forged(tmp_path, issuer=own.subject.rfc4514_string()))
    attacker = Client(gateway.port, context)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        attacker.get("/v1/pointer")
    attacker.close()
    assert device.get("/v1/pointer").status == 204


def test_a_gateway_s_own_certificate_makes_no_device(fleet: Fleet, gateway: Serving) -> None:
    files = fleet.rig.authority.serve(("localhost",))
    context = fleet.context()
    context.load_cert_chain(files.certificate, files.key)
    attacker = Client(gateway.port, context)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        attacker.get("/v1/pointer")
    attacker.close()


def test_a_revoked_device_gets_nothing_and_may_not_renew(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    assert device.get("/v1/pointer").status == 204
    fleet.rig.roster.change("cam-1", lambda there: msgspec.structs.replace(there, revoked=True))
    eventually(lambda: device.get("/v1/pointer").status != 204)
    assert device.get("/v1/pointer").problem()["code"] == "revoked"
    renewal = device.ask("POST", "/v1/renew", encode(Machine().renewal()), JSON)
    assert renewal.problem()["code"] == "revoked"


def test_a_certificate_that_another_machine_s_replaced_counts_no_longer(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    fleet.device(gateway, "cam-1")
    assert device.get("/v1/pointer").problem()["code"] == "revoked"


def test_a_device_that_was_retired_is_unknown(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    fleet.rig.roster.retire("cam-1")
    eventually(lambda: device.get("/v1/pointer").status != 204)
    assert device.get("/v1/pointer").problem()["code"] == "unknown-device"


def test_a_certificate_that_ended_renews_itself_and_does_nothing_else(
    fleet: Fleet, gateway: Serving
) -> None:
    machine, identity = fleet.join("cam-1", ago=timedelta(days=100))
    device = fleet.client(gateway, machine, identity)
    for path in ("/v1/pointer", f"/v1/blobs/sha256/{'a' * 64}", "/v1/requests", "/v1/runtime"):
        assert device.get(path).problem()["code"] == "expired"
    assert device.ask("PUT", "/v1/report", REPORT.encoded(), JSON).problem()["code"] == "expired"
    assert device.ask("POST", "/v1/renew", encode(machine.renewal()), JSON).status == 200


def test_a_certificate_that_ended_too_long_ago_renews_no_more(
    fleet: Fleet, gateway: Serving
) -> None:
    machine, identity = fleet.join("cam-1", ago=timedelta(days=90 + 366))
    device = fleet.client(gateway, machine, identity)
    renewal = device.ask("POST", "/v1/renew", encode(machine.renewal()), JSON)
    assert renewal.problem()["code"] == "expired"
    assert "enrol the device again" in renewal.problem()["detail"]


# What is another's


def test_a_report_that_names_another_device_is_the_sender_s(fleet: Fleet, device: Client) -> None:
    other = fleet.rig.keys.report("cam-2")
    body = REPORT.encoded()[:-1] + b',"device":"cam-2","name":"cam-2"}'
    assert device.ask("PUT", "/v1/report?device=cam-2", body, JSON).status == 204
    assert fleet.rig.state.read(other) is None
    assert fleet.rig.state.read(fleet.rig.keys.report("cam-1")) is not None


def test_what_is_no_document_is_refused_in_words(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    stranger = fleet.stranger(gateway)
    for client, method, path in (
        (device, "PUT", "/v1/report"),
        (device, "POST", "/v1/renew"),
        (stranger, "POST", "/v1/enroll"),
    ):
        for body in (b"", b"{}", b"[" * 2_000, b"\xff"):
            problem = client.ask(method, path, body, JSON).problem()
            assert (problem["status"], problem["title"]) == (400, "malformed"), (path, body[:9])


def test_an_event_that_names_another_device_is_the_sender_s(fleet: Fleet, device: Client) -> None:
    event = new_event(HealthEvent(what="started", message="here"))
    event = msgspec.structs.replace(event, source="/devices/cam-2")
    body = msgspec.json.encode([event])
    assert device.ask("POST", "/v1/events", body, EVENTS).status == 204
    assert [kept.device for kept in fleet.receiver.events] == ["cam-1"]


def test_a_device_neither_sees_nor_answers_another_s_requests(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    other = fleet.device(gateway, "cam-2")
    fleet.rig.state.write(fleet.rig.keys.request("cam-2", "a" * 32), b"{}", expect=None)
    assert device.ask("PUT", f"/v1/answers/{'a' * 32}", b"{}").status == 404
    assert fleet.rig.state.read(fleet.rig.keys.answer("cam-2", "a" * 32)) is None
    assert other.ask("PUT", f"/v1/answers/{'a' * 32}", b"{}").status == 204


def test_a_device_goes_on_with_no_other_s_file(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    content = b"x" * 1000
    assert patch(device, SEGMENT, content, 0, 500).status == 204
    other = fleet.device(gateway, "cam-2")
    answer = patch(other, SEGMENT, content, 500, 1000)
    assert (answer.status, answer.headers["upload-offset"]) == (409, "0")


@pytest.mark.parametrize(
    "path",
    [
        "../cam-2/segments/x",
        "segments/../../cam-2/x",
        "segments/%2e%2e/%2e%2e/cam-2/x",
        "segments%2f..%2f..%2fcam-2%2fx",
        "segments/..%5c..%5cx",
        "%2fetc/passwd",
        "segments//x",
        "segments/./x",
        "segments/a%00b",
        "segments/a%0ab",
        "segments",
        "segments/",
        "hot/events.ndjson",
        "C:/x",
        "segments/" + "a" * 300,
    ],
)
def test_no_path_leads_out_of_a_device_s_own(
    fleet: Fleet, device: Client, path: str, tmp_path: Path
) -> None:
    def files() -> list[Path]:
        """All that there is, but what the gateway writes by itself: whom it saw."""
        on_the_way = fleet.folder / "fleet" / "partial"
        return sorted(
            found
            for found in tmp_path.rglob("*")
            if "seen" not in found.parts and on_the_way not in (found, *found.parents)
        )

    before = files()
    answer = patch(device, path, b"x", 0, 1)
    assert answer.problem()["status"] in {400, 403, 404}
    assert not fleet.receiver.files
    assert files() == before


@pytest.mark.parametrize(
    "path",
    [
        "sha256/../../../etc/passwd",
        "sha256/%2e%2e%2f%2e%2e%2fstate",
        "sha256/" + "A" * 64,
        "sha256/" + "a" * 63,
        "sha256/" + "a" * 64 + "%0a",
        "sha512/" + "a" * 64,
        "../pointer",
    ],
)
def test_a_blob_is_named_by_its_digest_alone(device: Client, path: str) -> None:
    assert device.get(f"/v1/blobs/{path}").problem()["status"] == 404


# Files


def test_a_part_that_is_played_again_counts_once(fleet: Fleet, device: Client) -> None:
    content = bytes(range(200)) * 10
    assert patch(device, SEGMENT, content, 0, 1000).status == 204
    for start in (0, 500, 1500):
        answer = patch(device, SEGMENT, content, start, start + 500)
        assert (answer.status, answer.headers["upload-offset"]) == (409, "1000")
    assert patch(device, SEGMENT, content, 1000, 2000).status == 201
    assert fleet.receiver.files == [("cam-1", SEGMENT, content)]


def test_content_that_isn_t_what_its_digest_says_is_dropped(fleet: Fleet, device: Client) -> None:
    content = b"what was announced"
    digest = digest_field(digest_of(b"something else" + b"...."))
    answer = patch(device, SEGMENT, content, 0, len(content), Repr_Digest=digest)
    assert (answer.status, answer.headers["upload-offset"]) == (400, "0")
    standing = device.ask("HEAD", f"/v1/files/{SEGMENT}", None, {"Repr-Digest": digest})
    assert standing.headers["upload-offset"] == "0"
    assert not fleet.receiver.files


@pytest.mark.parametrize(
    "headers",
    [
        {"Repr_Digest": "md5=:AAAA:"},
        {"Repr_Digest": ""},
        {"Upload_Offset": "-1"},
        {"Upload_Offset": "1e3"},
        {"Upload_Offset": "9" * 40},
        {"Upload_Offset": "9"},
        {"Upload_Length": ""},
        {"Upload_Complete": "yes"},
    ],
)
def test_a_part_that_makes_no_sense_is_refused(
    fleet: Fleet, device: Client, headers: dict[str, str]
) -> None:
    assert patch(device, SEGMENT, b"content", 0, 7, **headers).problem()["status"] == 400
    assert not fleet.receiver.files
