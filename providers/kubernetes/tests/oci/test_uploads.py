"""Blobs on their way to a registry: in chunks, resumed, mounted, raced, refused."""

from __future__ import annotations

import fcntl
import io
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from filelock import FileLock, Timeout
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.errors import (
    IntegrityError,
    NotFoundError,
    StorageFullError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import digest_of
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.oci import Kind, OciRegistry, throttled
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit.samples import Content, noise
from edgefleet_kubernetes.cloud.oci_registry import DockerRegistry, installed
from providers.kubernetes.tests.oci.rig import NAME, Operator

MIB = 1 << 20
CHUNKS = 4
DATA = noise((CHUNKS - 1) * MIB + 1234, 7)
DESCRIPTOR = Descriptor(media_type="", digest=digest_of(DATA), size=len(DATA))
Start = Callable[..., OciRegistry]


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[DockerRegistry]:
    if not installed():
        pytest.skip("docker-registry is not installed here")
    with DockerRegistry(tmp_path / "docker") as running:
        yield running


def _source() -> BinaryIO:
    return io.BytesIO(DATA)


def _put(operator: Operator, host: str, **settings: Any) -> list[int]:
    steps: list[int] = []
    registry = operator.registry(host, chunk_mib=1, **settings)
    registry.blobs.put(DESCRIPTOR, _source, progress=steps.append)
    assert _read(operator, host) == Content.of(DATA)
    return steps


def _read(operator: Operator, host: str) -> Content:
    with operator.registry(host).blobs.open(DESCRIPTOR.digest) as stream:
        return Content.of(b"".join(iter(lambda: stream.read(MIB), b"")))


def test_a_large_blob_goes_in_chunks_and_is_told_to_its_end(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in()
    assert sum(_put(operator, registry.host)) == len(DATA)
    assert len(registry.seen("SendChunk", "202")) == CHUNKS
    assert len(registry.seen("EndUpload", "201")) == 1


def test_a_registry_that_takes_no_chunks_is_sent_the_blob_whole(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in(kind=Kind(chunks=False))
    assert sum(_put(operator, registry.host)) == len(DATA)
    assert len(registry.seen("SendChunk", "405")) == 1
    assert len(registry.seen("EndUpload", "201")) == 1


def test_a_registry_that_wants_larger_chunks_gets_them(stand_in: Start, operator: Operator) -> None:
    registry = stand_in(kind=Kind(least_chunk=2 * MIB))
    _put(operator, registry.host)
    assert len(registry.seen("SendChunk", "202")) == 2


def test_a_chunk_whose_connection_broke_goes_on_at_its_byte(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in(kind=Kind(drop_every=700_000))
    assert sum(_put(operator, registry.host)) == len(DATA)
    taken = registry.content.taken
    assert taken == len(DATA)
    assert registry.seen("GetUpload", "204")


def test_a_chunk_whose_answer_was_lost_is_not_sent_again(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in()
    registry.rules.add(Rule("oci.SendChunk", skip=1, cut_answer_at=0))
    _put(operator, registry.host)
    assert registry.content.taken == len(DATA)


def test_an_upload_whose_last_answer_was_lost_is_found_done(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in()
    registry.rules.add(Rule("oci.EndUpload", cut_answer_at=0))
    _put(operator, registry.host)
    assert registry.content.taken == len(DATA)


@pytest.mark.parametrize("kind", ["stand-in", "docker-registry"])
def test_a_push_that_is_killed_goes_on_and_sends_nothing_twice(
    kind: str, stand_in: Start, operator: Operator, request: pytest.FixtureRequest
) -> None:
    real = kind == "docker-registry"
    host = request.getfixturevalue("docker").host if real else (registry := stand_in()).host
    operator.base.mkdir()
    (operator.base / "blob").write_bytes(DATA)
    work = f"""
import os, signal, sys
from pathlib import Path
from edgefleet.protocol.bundle import Descriptor
from edgefleet_kubernetes.registry import KubernetesRegistry
from edgefleet_kubernetes.settings import KubernetesSettings
settings = KubernetesSettings(prefix="plant", registry="oci://{host}/{NAME}", chunk_mib=1)
told = []
def die(count):
    told.append(count)
    if len(told) == {CHUNKS - 1}:
        os.kill(os.getpid(), signal.SIGKILL)
descriptor = Descriptor(media_type="", digest={DESCRIPTOR.digest!r}, size={len(DATA)})
registry = KubernetesRegistry(settings, state=lambda: None, base=Path.cwd())
registry.blobs.put(descriptor, lambda: open("blob", "rb"), progress=die)
"""
    done = subprocess.run([sys.executable, "-c", work], cwd=operator.base, check=False)
    assert done.returncode == -signal.SIGKILL
    assert operator.registry(host).blobs.size(DESCRIPTOR.digest) is None
    steps = _put(operator, host)
    assert sum(steps) == len(DATA)
    assert steps[0] == (CHUNKS - 1) * MIB  # there already
    if not real:
        assert registry.content.taken == len(DATA)
        assert len(registry.seen("BeginUpload", "202")) == 1
    assert not list((operator.base / ".edgefleet/kubernetes/uploads").glob("*.json"))


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_upload_whose_address_has_ended_is_begun_anew(
    stand_in: Start, operator: Operator, status: int
) -> None:
    registry = stand_in()

    def give_up(_count: int) -> None:
        raise InterruptedError

    with suppress(InterruptedError):
        operator.registry(registry.host, chunk_mib=1).blobs.put(
            DESCRIPTOR, _source, progress=give_up
        )
    registry.rules.add(Rule("oci.GetUpload", fault=Refused(status, "DENIED")))
    assert sum(_put(operator, registry.host)) == len(DATA)
    assert len(registry.seen("GetUpload", str(status))) == 1


def test_an_upload_that_the_registry_forgot_is_begun_anew(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in()
    gone = Refused(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    registry.rules.add(Rule("oci.SendChunk", skip=2, fault=gone))
    assert sum(_put(operator, registry.host)) == len(DATA)
    assert len(registry.seen("BeginUpload", "202")) == 2


def test_an_upload_whose_chunks_are_forgotten_again_and_again_is_sent_whole(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in()
    gone = Refused(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    registry.rules.add(Rule("oci.SendChunk", skip=1, times=None, fault=gone))
    assert sum(_put(operator, registry.host)) == len(DATA)


def test_a_registry_that_keeps_only_the_first_chunk_is_sent_the_blob_whole(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in(kind=Kind(keeps_chunks=1))
    assert sum(_put(operator, registry.host)) == len(DATA)
    assert len(registry.seen("SendChunk", "202")) == 2


def test_an_upload_that_is_forgotten_whole_too_is_told(stand_in: Start, operator: Operator) -> None:
    registry = stand_in()
    gone = Refused(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    registry.rules.add(Rule("oci.EndUpload", times=None, fault=gone))
    with pytest.raises(UnavailableError, match="forgot the upload"):
        _put(operator, registry.host)


@pytest.mark.parametrize("data", [DATA, b"small"], ids=["whole", "small"])
def test_a_request_that_was_cut_is_sent_again(
    stand_in: Start, operator: Operator, data: bytes
) -> None:
    registry = stand_in(kind=Kind(chunks=False))
    registry.rules.add(Rule("oci.EndUpload", cut_request_at=len(data) // 2))
    descriptor = Descriptor(media_type="", digest=digest_of(data), size=len(data))
    blobs = operator.registry(registry.host, chunk_mib=1).blobs
    blobs.put(descriptor, lambda: io.BytesIO(data))
    assert blobs.size(descriptor.digest) == len(data)


_FAULTS: dict[str, dict[str, Any]] = {
    "cut": {"cut_request_at": 500_000},
    "cut at once": {"cut_request_at": 0},
    "unanswered": {"cut_answer_at": 0},
    "forgotten": {"fault": Refused(404, "BLOB_UPLOAD_UNKNOWN")},
    "broken": {"fault": Refused(500, "UNKNOWN")},
    "busy": {"fault": throttled(0)},
}


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["BeginUpload", "SendChunk", "EndUpload", "GetUpload", "HeadBlob"]),
            st.sampled_from(sorted(_FAULTS)),
            st.integers(0, 4),
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_whatever_breaks_the_blob_is_there_in_the_end_and_right(
    faults: list[tuple[str, str, int]],
    chunks: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Operator(Path(folder))) as operator,
        OciRegistry(Path(folder) / "registry", Kind(chunks=chunks)) as registry,
    ):
        for operation, fault, skip in faults:
            registry.rules.add(Rule(f"oci.{operation}", skip=skip, **_FAULTS[fault]))
        for _ in range(len(faults)):
            with suppress(UnavailableError, NotFoundError):
                _put(operator, registry.host)
        for _ in range(len(faults)):  # some may wait for a request that only comes now
            with suppress(UnavailableError, NotFoundError):
                _put(operator, registry.host)
                break
        else:
            _put(operator, registry.host)


def test_the_real_registry_forgets_a_broken_chunk_and_the_push_survives(
    docker: DockerRegistry, operator: Operator
) -> None:
    """It cancels an upload whose connection broke, so one begins anew: nothing else can be done."""

    class Breaks(io.BytesIO):
        broken = False

        def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
            if self.tell() > 2 * MIB and not Breaks.broken:
                Breaks.broken = True
                raise ConnectionResetError("the source broke")
            return super().readinto(buffer)

    registry = operator.registry(docker.host, chunk_mib=1)
    with pytest.raises(UnavailableError):
        registry.blobs.put(DESCRIPTOR, lambda: Breaks(DATA))
    registry.blobs.put(DESCRIPTOR, lambda: Breaks(DATA))
    assert _read(operator, docker.host) == Content.of(DATA)


def test_other_bytes_that_an_upload_under_way_holds_are_thrown_away(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in()
    registry.rules.add(Rule("oci.SendChunk", skip=1, fault=Refused(403, "DENIED")))
    with pytest.raises(PermissionError):
        _put(operator, registry.host)
    (upload,) = registry.content.uploads()
    upload.replace(noise(MIB, 99))
    _put(operator, registry.host)
    assert len(registry.seen("EndUpload", "400")) == 1


def test_wrong_content_is_never_a_blob(stand_in: Start, operator: Operator) -> None:
    registry = stand_in()
    blobs = operator.registry(registry.host, chunk_mib=1).blobs
    with pytest.raises(IntegrityError):
        blobs.put(DESCRIPTOR, lambda: io.BytesIO(DATA[:-1] + b"?"))
    assert not registry.seen("EndUpload")
    assert blobs.size(DESCRIPTOR.digest) is None


def test_two_that_push_the_same_blob_at_once_make_it_once(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in()
    other = operator.registry(registry.host, chunk_mib=1).blobs

    def overtaken() -> BinaryIO:
        other.put(DESCRIPTOR, _source)  # while the first holds the upload's lock
        return _source()

    operator.registry(registry.host, chunk_mib=1).blobs.put(DESCRIPTOR, overtaken)
    assert _read(operator, registry.host) == Content.of(DATA)


def test_whoever_has_an_uploads_lock_open_keeps_others_out_after_a_push(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in()
    with ExitStack() as opened:
        files: list[BinaryIO] = []

        def waiting() -> BinaryIO:
            [lock] = (operator.base / ".edgefleet/kubernetes/uploads").glob("*.lock")
            files.append(opened.enter_context(lock.open("rb")))
            return _source()

        operator.registry(registry.host, chunk_mib=1).blobs.put(DESCRIPTOR, waiting)
        fcntl.flock(files[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(Timeout):
            FileLock(str(files[0].name)).acquire(timeout=0)


@pytest.mark.parametrize("mounts", [True, False], ids=["taken over", "sent"])
def test_a_blob_of_another_repository_is_taken_over_where_that_is_possible(
    mounts: bool,  # noqa: FBT001 - a parameter of pytest's
    stand_in: Start,
    operator: Operator,
) -> None:
    registry = stand_in(kind=Kind(mounts=mounts))
    elsewhere = operator.registry(registry.host, registry=f"oci://{registry.host}/plant/staging")
    elsewhere.blobs.put(DESCRIPTOR, _source)
    before = registry.content.taken
    _put(operator, registry.host, mount_from=["plant/other", "plant/staging"])
    assert registry.content.taken - before == (0 if mounts else len(DATA))


def test_the_real_registry_mounts_too(docker: DockerRegistry, operator: Operator) -> None:
    elsewhere = operator.registry(docker.host, registry=f"oci://{docker.host}/plant/staging")
    elsewhere.blobs.put(DESCRIPTOR, _source)

    def opening() -> BinaryIO:
        pytest.fail("the blob was sent")

    registry = operator.registry(docker.host, mount_from=["plant/staging"])
    registry.blobs.put(DESCRIPTOR, opening)
    assert _read(operator, docker.host) == Content.of(DATA)


@pytest.mark.parametrize("operation", ["BeginUpload", "SendChunk", "EndUpload", "HeadBlob"])
def test_what_the_registry_answers_later_is_sent_later(
    stand_in: Start, operator: Operator, operation: str
) -> None:
    registry = stand_in()
    registry.rules.add(Rule(f"oci.{operation}", fault=throttled(0)))
    _put(operator, registry.host)
    assert registry.content.taken == len(DATA)


def test_a_registry_that_stays_busy_is_told_with_how_long_to_wait(
    stand_in: Start, operator: Operator
) -> None:
    registry = stand_in()
    registry.rules.add(Rule("oci.BeginUpload", times=None, fault=throttled(3600)))
    with pytest.raises(ThrottledError) as raised:
        _put(operator, registry.host)
    assert raised.value.retry_after_s == 3600
    assert len(registry.seen("BeginUpload")) == 1


def test_a_registry_without_room_is_told(stand_in: Start, operator: Operator) -> None:
    registry = stand_in()
    full = Refused(500, "UNKNOWN", "write /var/lib/registry: no space left on device")
    registry.rules.add(Rule("oci.SendChunk", times=None, fault=full))
    with pytest.raises(StorageFullError, match="free space at the registry"):
        _put(operator, registry.host)
