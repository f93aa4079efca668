"""One heap for all threads, as glibc itself tells of it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tritonclient.grpc as client

from device_runtime.tests.onnx_models import plus
from device_runtime.tests.standalone.test_serve import infer, serving

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")

HEAP_BYTES = 64 << 20  # of an arena beside the main one: HEAP_MAX_SIZE of glibc's malloc/arena.c
THREADS = 6
# Threads that live at the same time take memory from glibc; then malloc_info(3) tells of the heaps.
TOLD = f"""
import ctypes, sys, threading
from edgefleet_runtime.allocator import share_heap

if sys.argv[1:]:
    print(share_heap())
all_have = threading.Barrier({THREADS})

def take():
    mine = ctypes.create_string_buffer(10_000)
    all_have.wait()

threads = [threading.Thread(target=take) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
sys.stdout.flush()
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stream)
libc.fflush(stream)
"""


def told(*arguments: str, **environment: str) -> tuple[int, str]:
    """How many heaps a process had in the end, and all that it said."""
    kept = {k: v for k, v in os.environ.items() if k not in {"MALLOC_ARENA_MAX", "GLIBC_TUNABLES"}}
    said = subprocess.run(
        [sys.executable, "-c", TOLD, *arguments],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return said.count("<heap nr="), said


def test_threads_that_come_later_share_the_heap() -> None:
    heaps, said = told("share")
    assert said.startswith("True\n")
    assert heaps == 1


def test_without_that_threads_take_heaps_of_their_own() -> None:
    heaps, _ = told()
    assert heaps > 1


@pytest.mark.parametrize(
    "name,value", [("MALLOC_ARENA_MAX", "3"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=3")]
)
def test_an_operator_who_has_set_the_number_of_heaps_has_it(name: str, value: str) -> None:
    heaps, said = told("share", **{name: value})
    assert said.startswith("False\n")
    assert heaps == 3


def arenas(pid: int) -> int:
    """Arenas beside the main one: they lie at multiples of their size, and what they don't use yet
    is mapped behind them without any access."""
    pattern = r"^([0-9a-f]+)-([0-9a-f]+) rw-p [^\n]* 0 +\n([0-9a-f]+)-([0-9a-f]+) ---p"
    lines = Path(f"/proc/{pid}/maps").read_text()
    found = [
        [int(number, 16) for number in match] for match in re.findall(pattern, lines, re.MULTILINE)
    ]
    return sum(
        not start % HEAP_BYTES and stop == rest and end == start + HEAP_BYTES
        for start, stop, rest, end in found
    )


def test_a_server_has_one_heap_for_rest_grpc_and_its_models(tmp_path: Path) -> None:
    model = plus(tmp_path / "m.onnx", 1)
    with serving("--model", f"m={model}", "--grpc", "127.0.0.1:0") as (endpoint, process):
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        assert infer(endpoint, "m", [1.0], [1]) == [2.0]
        with client.InferenceServerClient(address) as grpc:
            assert grpc.is_server_ready()
        threads = len([*Path(f"/proc/{process.pid}/task").iterdir()])
        assert threads > 1
        assert arenas(process.pid) == 0
