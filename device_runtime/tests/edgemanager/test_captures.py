"""Captures: taken in, kept beside, and their status told truthfully."""

from __future__ import annotations

import io
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from device_runtime.tests.edgemanager.agent_client import AgentClient
from device_runtime.tests.edgemanager.agent_serving import MemoryRecorder, serving_agent
from device_runtime.tests.serving import WAIT_S, FakeModel, served, table_of
from edgefleet.errors import AlreadyExistsError, LimitExceededError, StorageFullError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.event import Sample, read_event
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.serve.capture import Capture
from edgefleet_runtime.serve.edgemanager import agent_pb2 as pb
from edgefleet_runtime.serve.edgemanager.captures import Captures
from edgefleet_runtime.spool.recorders import FolderRecorder
from edgefleet_runtime.spool.samples import BLOCK, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X, Y = np.array([1.0, 2.0], np.float32), np.array([[3, 4]], np.int64)
MOMENT = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def recorder() -> Iterator[MemoryRecorder]:
    recorder = MemoryRecorder()
    yield recorder
    recorder.go_on.set()


@pytest.fixture
def client(recorder: MemoryRecorder, contract: Path) -> Iterator[AgentClient]:
    table = table_of(served(FakeModel(), version="7"))
    with (
        serving_agent(table, captures=Captures(recorder)) as address,
        AgentClient(contract, address) as client,
    ):
        yield client


def captured(client: AgentClient, identity: str | None = None, **more: Any) -> str:
    identity = identity or str(uuid.uuid4())
    fields = {
        "model_name": "m",
        "input_tensors": [client.tensor("x", X)],
        "output_tensors": [client.tensor("y", Y)],
        **more,
    }
    client.CaptureData(capture_id=identity, **fields)
    return identity


def code_of(client: AgentClient, **fields: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        captured(client, fields.pop("capture_id", None), **fields)
    return raised.value.code().name, raised.value.details() or ""


def test_a_capture_is_kept_with_its_tensors_and_what_belongs_to_them(
    client: AgentClient, recorder: MemoryRecorder
) -> None:
    extra = client.message("AuxilaryData", name="part", encoding=1, byte_data=b'{"id": 7}')
    stamp = client.message("Timestamp", seconds=int(MOMENT.timestamp()) - 60, nanos=5000)
    identity = captured(client, inference_timestamp=stamp, inputs=[extra])
    eventually(lambda: client.status(identity) == "SUCCESS")
    (kept,) = recorder.kept
    assert (kept.id, kept.model, kept.version) == (identity, "m", "7")
    assert kept.time == datetime(2026, 11, 20, 23, 59, 0, 5, tzinfo=UTC)
    assert kept.inputs["part.json"] == b'{"id": 7}'
    np.testing.assert_array_equal(np.load(io.BytesIO(kept.inputs["x"])), X, strict=True)
    np.testing.assert_array_equal(np.load(io.BytesIO(kept.outputs["y"])), Y, strict=True)


def test_its_status_is_in_progress_until_it_is_kept(
    client: AgentClient, recorder: MemoryRecorder
) -> None:
    recorder.go_on.clear()
    identity = captured(client)
    assert client.status(identity) == "IN_PROGRESS"
    recorder.go_on.set()
    eventually(lambda: client.status(identity) == "SUCCESS")


@pytest.mark.parametrize("error", [StorageFullError("full"), OSError("broken"), ValueError("?")])
def test_its_status_is_failure_when_it_could_not_be_kept(
    client: AgentClient, recorder: MemoryRecorder, error: Exception
) -> None:
    recorder.fails = error
    identity = captured(client)
    eventually(lambda: client.status(identity) == "FAILURE")
    recorder.fails = None
    later = captured(client)
    eventually(lambda: client.status(later) == "SUCCESS")


def test_a_capture_that_nobody_made_is_not_found(client: AgentClient) -> None:
    assert client.status(str(uuid.uuid4())) == "NOT_FOUND"
    with pytest.raises(grpc.RpcError) as raised:
        client.status("nonsense")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_id_is_taken_once_in_either_case(client: AgentClient) -> None:
    identity = captured(client)
    assert code_of(client, capture_id=identity)[0] == "ALREADY_EXISTS"
    assert code_of(client, capture_id=identity.upper())[0] == "ALREADY_EXISTS"


def test_what_is_wrong_ends_with_aws_status(client: AgentClient) -> None:
    soon = client.message("Timestamp", seconds=int(time.time()) + 3600)
    before = client.message("Timestamp", seconds=-1)
    x = client.tensor("x", X)
    many = [client.tensor(f"x{n}", X) for n in range(300)]
    nameless = client.message("Tensor", byte_data=b"0000")
    odd = client.message("AuxilaryData", name="a", encoding=9, byte_data=b"")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"capture_id": "capture1637"}, "INVALID_ARGUMENT"),
        ({"capture_id": "{" + str(uuid.uuid4())[1:]}, "INVALID_ARGUMENT"),
        ({"inference_timestamp": soon}, "OUT_OF_RANGE"),
        ({"inference_timestamp": before}, "INVALID_ARGUMENT"),
        ({"model_name": "absent"}, "NOT_FOUND"),
        ({"input_tensors": [x, x]}, "INVALID_ARGUMENT"),
        ({"input_tensors": many}, "RESOURCE_EXHAUSTED"),
        ({"input_tensors": [nameless]}, "INVALID_ARGUMENT"),
        ({"inputs": [odd]}, "INVALID_ARGUMENT"),
        ({"inputs": [client.message("AuxilaryData", name="a")]}, "INVALID_ARGUMENT"),
    ]
    assert [code_of(client, **fields)[0] for fields, _ in cases] == [code for _, code in cases]


def test_without_a_place_to_keep_them_captures_are_refused_with_the_cure(contract: Path) -> None:
    with (
        serving_agent(table_of(served(FakeModel()))) as address,
        AgentClient(contract, address) as client,
    ):
        code, said = code_of(client)
        assert (code, "--capture-dir" in said) == ("FAILED_PRECONDITION", True)
        assert client.status(str(uuid.uuid4())) == "NOT_FOUND"


def capture(number: int, data: bytes = b"1234") -> Capture:
    return Capture(str(uuid.UUID(int=number)), "m", "1", MOMENT, {"x": data}, {})


def test_what_waits_is_bounded_in_captures_and_in_bytes(recorder: MemoryRecorder) -> None:
    recorder.go_on.clear()
    captures = Captures(recorder, max_waiting=2, max_bytes=10)
    captures.take(capture(1))
    with pytest.raises(LimitExceededError):
        captures.take(capture(2, bytes(7)))
    captures.take(capture(3))
    with pytest.raises(LimitExceededError):
        captures.take(capture(4, b""))
    recorder.go_on.set()
    captures.close()
    assert [kept.id for kept in recorder.kept] == [capture(1).id, capture(3).id]


def test_the_oldest_that_are_done_are_forgotten_and_those_that_wait_are_not(
    recorder: MemoryRecorder,
) -> None:
    done: list[Any] = []
    recorded = threading.Semaphore(0)

    class Slow:
        def record(self, capture: Capture, tell: Any) -> None:
            if capture.id == capture_1:
                done.append(tell)  # kept later
            else:
                tell(True)
            recorded.release()

    capture_1 = capture(1).id
    captures = Captures(Slow(), max_known=3)
    for number in range(1, 7):
        captures.take(capture(number))
        assert recorded.acquire(timeout=WAIT_S)
    assert captures.status(capture_1) == pb.IN_PROGRESS
    assert captures.status(capture(2).id) == pb.NOT_FOUND
    assert captures.status(capture(6).id) == pb.SUCCESS
    with pytest.raises(AlreadyExistsError):
        captures.take(capture(1))
    captures.close()
    done[0](True)
    assert captures.status(capture_1) == pb.SUCCESS


def test_a_folder_holds_files_by_digest_and_a_line_an_event(tmp_path: Path) -> None:
    told: list[bool] = []
    recorder = FolderRecorder(tmp_path / "captures", 10_000)
    recorder.record(capture(1), told.append)
    FolderRecorder(tmp_path / "captures", 10_000).record(capture(2), told.append)
    assert told == [True, True]
    lines = (tmp_path / "captures" / "events.ndjson").read_bytes().splitlines()
    events = [read_event(line) for line in lines]
    assert [event.id for event in events] == [capture(1).id, capture(2).id]
    sample = events[0].payload()
    assert isinstance(sample, Sample)
    assert (events[0].kind, events[0].time, sample.model_version) == ("sample", MOMENT, "1")
    digest = sample.inputs["x"]
    assert digest == digest_of(b"1234")
    file = tmp_path / "captures" / "samples" / "sha256" / digest.partition(":")[2]
    assert file.read_bytes() == b"1234"


def test_a_full_folder_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    told: list[bool] = []
    recorder = FolderRecorder(tmp_path, most := BLOCK + 2000)
    recorder.record(capture(1), told.append)
    with pytest.raises(StorageFullError):
        recorder.record(capture(2, bytes(2000)), told.append)

    def fill() -> None:
        for number in range(3, 20):
            recorder.record(capture(number), told.append)

    with pytest.raises(StorageFullError):
        fill()
    held = [path for path in tmp_path.rglob("*") if path.is_file()]
    lines = (tmp_path / "events.ndjson").stat().st_size
    assert lines + sum(blocks(path.stat().st_size) for path in held if path.suffix == "") <= most
    assert len((tmp_path / "events.ndjson").read_bytes().splitlines()) == len(told)
