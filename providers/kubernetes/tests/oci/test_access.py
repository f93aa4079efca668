"""Who the operator is at a registry, what is shown to whom, and what breaks in the middle."""

from __future__ import annotations

import base64
import io
import json
import logging
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.oci import read_repository
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.oci import Kind, OciRegistry, throttled
from edgefleet.testing.cloud.oci_tokens import PULL, User
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet_kubernetes.oci import RegistryClient
from edgefleet_kubernetes.registry import KubernetesRegistry
from providers.kubernetes.tests.oci.rig import NAME, Operator, credentials

MIB = 1 << 20
PASSWORD = "a password"
WRITER = {"ada": User(PASSWORD)}
AUTH = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
DATA = samples.noise(12_000_000, 3)
Start = Callable[..., OciRegistry]


def _put(registry: OciRegistry, data: bytes = DATA) -> str:
    upload = registry.content.begin(NAME)
    registry.content.take(NAME, upload, data)
    registry.content.finish(NAME, upload, digest_of(data))
    return digest_of(data)


def _read(registry: KubernetesRegistry, digest: str, offset: int = 0) -> samples.Content:
    with registry.blobs.open(digest, offset=offset) as stream:
        return samples.Content.of(b"".join(iter(lambda: stream.read(MIB), b"")))


def _round_trip(registry: KubernetesRegistry, tmp_path: Path) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    registry.pull("digits", tmp_path / "pulled").verify()


@pytest.mark.parametrize("bearer", [True, False], ids=["tokens", "passwords"])
def test_credentials_of_the_named_file_are_shown(
    bearer: bool,  # noqa: FBT001 - a parameter of pytest's
    stand_in: Start,
    operator: Operator,
    tmp_path: Path,
) -> None:
    registry = stand_in(users=WRITER, bearer=bearer)
    path = credentials(tmp_path / "config.json", registry.host, auth=AUTH)
    _round_trip(operator.registry(registry.host, registry_credentials=path), tmp_path)


@pytest.mark.parametrize("place", ["docker", "home", "podman"])
def test_credentials_are_found_where_tools_keep_them(
    stand_in: Start,
    operator: Operator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    registry = stand_in(users=WRITER)
    paths = {
        "docker": tmp_path / "docker" / "config.json",
        "home": tmp_path / "home" / ".docker" / "config.json",
        "podman": tmp_path / "run" / "containers" / "auth.json",
    }
    paths[place].parent.mkdir(parents=True)
    credentials(paths[place], registry.host, auth=AUTH)
    if place == "docker":
        monkeypatch.setenv("DOCKER_CONFIG", str(paths[place].parent))
    if place == "podman":
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    _round_trip(operator.registry(registry.host), tmp_path)


def test_a_credential_helper_is_run_by_its_name(
    stand_in: Start, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = stand_in(users=WRITER)
    told = json.dumps({"Username": "ada", "Secret": PASSWORD})
    helper = tmp_path / "docker-credential-vendor"
    helper.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"assert sys.argv[1:] == ['get'] and sys.stdin.read() == {registry.host!r}\n"
        f"print({told!r})\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credHelpers": {registry.host: "vendor"}}))
    _round_trip(operator.registry(registry.host, registry_credentials=path), tmp_path)


@pytest.mark.parametrize(
    "helper, said", [("missing", "not installed"), ("../../bin/sh", "docker's form")]
)
def test_a_helper_that_cannot_be_run_is_told(
    stand_in: Start, operator: Operator, tmp_path: Path, helper: str, said: str
) -> None:
    registry = stand_in(users=WRITER)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credHelpers": {registry.host: helper}}))
    ours = operator.registry(registry.host, registry_credentials=path)
    with pytest.raises(ConfigurationError, match=said):
        ours.blobs.size(digest_of(b"x"))


def test_one_token_reads_and_writes(stand_in: Start, operator: Operator, tmp_path: Path) -> None:
    registry = stand_in(users=WRITER)
    path = credentials(tmp_path / "config.json", registry.host, auth=AUTH)
    _round_trip(operator.registry(registry.host, registry_credentials=path), tmp_path)
    assert len(registry.seen("GetToken")) == 2  # to read, then to read and write


def test_a_token_that_ends_in_the_middle_of_a_push_is_renewed(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    now = [0.0]
    registry = stand_in(users=WRITER, clock=lambda: now[0])
    path = credentials(tmp_path / "config.json", registry.host, auth=AUTH)
    ours = operator.registry(registry.host, registry_credentials=path, chunk_mib=1)
    descriptor = samples.descriptor_of(DATA)

    def progress(_: int) -> None:
        now[0] += 200  # a token lasts 300 s

    ours.blobs.put(descriptor, lambda: io.BytesIO(DATA), progress=progress)
    assert registry.content.taken == len(DATA)
    assert len(registry.seen("GetToken")) > 4


def test_a_token_that_ends_in_the_middle_of_a_pull_is_renewed(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    registry = stand_in(users=WRITER, kind=Kind(drop_every=5_000_000))
    digest = _put(registry)
    path = credentials(tmp_path / "config.json", registry.host, auth=AUTH)
    ours = operator.registry(registry.host, registry_credentials=path)
    assert registry.access is not None
    with ours.blobs.open(digest) as stream:
        data = stream.read(MIB)
        registry.access.expire()
        data += b"".join(iter(lambda: stream.read(MIB), b""))
    assert samples.Content.of(data) == samples.Content.of(DATA)
    assert len(registry.seen("GetToken")) == 2


@pytest.mark.parametrize("redirects", [False, True], ids=["registry", "store behind it"])
def test_a_connection_that_is_dropped_every_5_mb_goes_on_by_range(
    redirects: bool,  # noqa: FBT001 - a parameter of pytest's
    stand_in: Start,
    operator: Operator,
) -> None:
    registry = stand_in(kind=Kind(drop_every=5_000_000, redirects=redirects))
    ours = operator.registry(registry.host)
    assert _read(ours, _put(registry)) == samples.Content.of(DATA)
    assert len(registry.seen("StoreGet" if redirects else "GetBlob", "206")) == 2


def test_a_connection_that_is_lost_again_and_again_is_told(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in()
    digest = _put(registry)
    registry.rules.add(Rule("oci.GetBlob", times=None, cut_answer_at=0))
    with pytest.raises(UnavailableError, match="repeat the call"):
        _read(operator.registry(registry.host), digest)


def test_what_authorizes_goes_to_no_other_host(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    """The store refuses who shows it more than the signed address, as S3 does."""
    registry = stand_in(users=WRITER, kind=Kind(redirects=True))
    path = credentials(tmp_path / "config.json", registry.host, auth=AUTH)
    _round_trip(operator.registry(registry.host, registry_credentials=path), tmp_path)
    assert registry.seen("StoreGet", "200")
    assert not registry.seen("StoreGet", "400")


def test_a_redirect_whose_address_ended_is_resolved_again(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in(kind=Kind(redirects=True))
    digest = _put(registry)
    registry.rules.add(Rule("oci.StoreGet", fault=Refused(403, "DENIED", "expired")))
    assert _read(operator.registry(registry.host), digest) == samples.Content.of(DATA)
    assert len(registry.seen("GetBlob", "307")) == 2


def test_addresses_that_are_always_ended_do_not_loop(stand_in: Start, operator: Operator) -> None:
    registry = stand_in(kind=Kind(redirects=True, signed_s=0))
    digest = _put(registry)
    with pytest.raises(AccessDeniedError):
        _read(operator.registry(registry.host), digest)
    assert len(registry.seen("StoreGet", "403")) == 2


def test_a_blob_that_is_nowhere_stops_at_once(stand_in: Start, operator: Operator) -> None:
    registry = stand_in()
    with pytest.raises(NotFoundError, match="push the bundle again"):
        _read(operator.registry(registry.host), digest_of(b"nothing"))
    assert len(registry.seen("GetBlob")) == 1


def test_a_busy_token_service_is_asked_later(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    registry = stand_in(users=WRITER)
    registry.rules.add(Rule("oci.GetToken", fault=throttled(0)))
    path = credentials(tmp_path / "config.json", registry.host, auth=AUTH)
    _round_trip(operator.registry(registry.host, registry_credentials=path), tmp_path)


def test_a_busy_registry_that_names_no_time_is_told(stand_in: Start, operator: Operator) -> None:
    registry = stand_in()
    registry.rules.add(Rule("oci.HeadBlob", times=None, fault=throttled()))
    with pytest.raises(ThrottledError):
        operator.registry(registry.host, max_attempts=1).blobs.size(digest_of(b"x"))


@pytest.mark.parametrize("bearer", [True, False], ids=["tokens", "passwords"])
def test_credentials_that_are_not_taken_are_told(
    bearer: bool,  # noqa: FBT001 - a parameter of pytest's
    stand_in: Start,
    operator: Operator,
    tmp_path: Path,
) -> None:
    registry = stand_in(users=WRITER, bearer=bearer)
    path = credentials(tmp_path / "c", registry.host, username="ada", password="old")
    ours = operator.registry(registry.host, registry_credentials=path)
    with pytest.raises(AccessExpiredError, match="log in"):
        ours.blobs.size(digest_of(b"x"))


@pytest.mark.parametrize("bearer", [True, False], ids=["tokens", "passwords"])
def test_who_may_only_read_is_told_what_is_missing(
    bearer: bool,  # noqa: FBT001 - a parameter of pytest's
    stand_in: Start,
    operator: Operator,
    tmp_path: Path,
) -> None:
    registry = stand_in(users={"ada": User(PASSWORD, PULL)}, bearer=bearer)
    digest = _put(registry)
    path = credentials(tmp_path / "c", registry.host, auth=AUTH)
    ours = operator.registry(registry.host, registry_credentials=path)
    assert _read(ours, digest) == samples.Content.of(DATA)
    with pytest.raises(AccessDeniedError, match="push to the repository") as raised:
        ours.push(samples.bundle(tmp_path), "digits")
    assert not isinstance(raised.value, AccessExpiredError)


def test_what_may_be_done_is_proven_without_a_trace(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    registry = stand_in(users={**WRITER, "eve": User("x", PULL)})
    path = credentials(tmp_path / "c", registry.host, auth=AUTH)
    ours = operator.registry(registry.host, registry_credentials=path)
    assert [proof.problem for proof in ours.proofs()] == [None, None]
    assert list(registry.content.uploads()) == []
    credentials(path, registry.host, username="eve", password="x")
    fresh = operator.registry(registry.host, registry_credentials=path)
    may_pull, may_push = fresh.proofs()
    assert may_pull.problem is None
    assert may_push.action == f"push at oci://{registry.host}/{NAME}"
    assert "push to the repository" in str(may_push.problem)


def test_no_credentials_are_told_with_how_to_get_some(stand_in: Start, operator: Operator) -> None:
    registry = stand_in(users=WRITER, bearer=False)
    with pytest.raises(AccessDeniedError, match="docker login"):
        operator.registry(registry.host).blobs.size(digest_of(b"x"))


def test_secrets_are_in_no_message_and_no_log(
    stand_in: Start, operator: Operator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "edgefleet_kubernetes")
    registry = stand_in(users=WRITER, kind=Kind(redirects=True))
    path = credentials(tmp_path / "c", registry.host, username="ada", password="quite-secret")
    ours = operator.registry(registry.host, registry_credentials=path)
    with pytest.raises(AccessExpiredError) as raised:
        ours.blobs.size(digest_of(b"x"))
    path.write_text('{"auths": "quite-secret')
    with pytest.raises(ConfigurationError) as broken:
        ours.blobs.size(digest_of(b"x"))
    path = credentials(tmp_path / "c", registry.host, auth=AUTH)
    assert _read(ours, _put(registry)) == samples.Content.of(DATA)
    assert "HTTP Request" in caplog.text
    said = caplog.text + repr(raised.value) + repr(broken.value) + repr(broken.value.__cause__)
    for secret in ("quite-secret", AUTH, "Bearer ", "signature="):
        assert secret not in said


def test_a_registry_is_trusted_by_its_certificate_only(stand_in: Start) -> None:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(serving)
    registry = stand_in(tls=serving)
    digest = _put(registry, b"small")
    repository = read_repository(f"oci://{registry.host}/{NAME}")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    sizes = []
    for context in (trusting, None):
        client = RegistryClient(
            repository,
            lambda: None,
            attempts=1,
            timeout_s=30,
            origin=registry.url,
            context=context,
        )
        try:
            reply = client.call("HEAD", f"{client.url}/blobs/{digest}", "a blob")
            sizes.append(int(reply.headers["Content-Length"]))
        except Exception as error:  # noqa: BLE001 - told below
            sizes.append("CERTIFICATE_VERIFY_FAILED" in str(error))
        finally:
            client.close()
    assert sizes == [5, True]
