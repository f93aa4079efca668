"""Tensors in System V shared memory: read where they may be, and nowhere else."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from device_runtime.tests.edgemanager.agent_client import AgentClient
from device_runtime.tests.edgemanager.agent_serving import serving_agent
from device_runtime.tests.serving import FakeModel, served, table_of
from edgefleet.errors import AccessDeniedError, InvalidInputError, LimitExceededError, NotFoundError
from edgefleet_runtime.serve.edgemanager import sysv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not sysv.supported(), reason="System V segments of Linux")

X = np.array([1.5, -2.0, 3.25], np.float32)
SIZE = 4096
CREATE, REMOVE, SET = 0o1000, 0, 1


@pytest.fixture
def segment() -> Iterator[int]:
    """A segment of this user's that begins with X."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    number = libc.shmget(0, SIZE, CREATE | 0o600)
    assert number >= 0, os.strerror(ctypes.get_errno())
    address = libc.shmat(number, None, 0)
    ctypes.memmove(address, X.tobytes(), X.nbytes)
    libc.shmdt(ctypes.c_void_p(address))
    yield number
    libc.shmctl(number, REMOVE, None)


def test_a_part_of_a_segment_is_copied(segment: int) -> None:
    assert sysv.read_segment(segment, 4, 8, max_bytes=100) == X[1:].tobytes()


@pytest.mark.parametrize(
    "offset,size", [(SIZE, 1), (0, SIZE + 1), (2**63, 1), (2**64 - 1, 2), (1, SIZE)]
)
def test_bytes_outside_are_refused(segment: int, offset: int, size: int) -> None:
    with pytest.raises(InvalidInputError, match="not inside"):
        sysv.read_segment(segment, offset, size, max_bytes=1 << 20)


def test_more_than_the_limit_is_refused(segment: int) -> None:
    with pytest.raises(LimitExceededError):
        sysv.read_segment(segment, 0, 101, max_bytes=100)


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 2**64 - 1])
def test_a_segment_that_is_none_is_not_found(number: int) -> None:
    with pytest.raises(NotFoundError):
        sysv.read_segment(number, 0, 1, max_bytes=100)


def test_another_users_segment_is_refused(segment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(AccessDeniedError, match="another user"):
        sysv.read_segment(segment, 0, 4, max_bytes=100)


def test_a_prediction_takes_its_input_from_a_segment(contract: Path, segment: int) -> None:
    with (
        serving_agent(table_of(served(FakeModel(1)))) as address,
        AgentClient(contract, address) as client,
    ):
        metadata = client.message("TensorMetadata", name="x", data_type=5, shape=[3])
        for size in (X.nbytes, 0):  # AWS's example clients leave it 0
            handle = client.message("SharedMemoryHandle", segment_id=segment, size=size)
            tensor = client.message("Tensor", tensor_metadata=metadata, shared_memory_handle=handle)
            np.testing.assert_array_equal(client.predict("m", tensor)["y"], X + 1)
        handle = client.message("SharedMemoryHandle", segment_id=segment, size=4)
        tensor = client.message("Tensor", tensor_metadata=metadata, shared_memory_handle=handle)
        with pytest.raises(grpc.RpcError, match="bytes of data"):
            client.predict("m", tensor)
