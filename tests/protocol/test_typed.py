"""Values of a type: threads that are the first to read one, all at once.

What is tested ends the whole process where it is missing, so a child process does it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

FIRST_READS = """
import sys
import threading
from typing import Annotated

import msgspec

from edgefleet.protocol.typed import convert, decoder

THREADS = 8
DATA = b'{"one": {"count": 1, "name": "q", "shape": [1]}, "many": {"k": {}}, "rest": [{}]}'
sys.setswitchinterval(1e-6)  # as on a machine with much else to do


def made():
    class Inner(msgspec.Struct):
        count: int = 0
        name: Annotated[str, msgspec.Meta(max_length=3)] = ""
        shape: tuple[int, ...] = ()

    class Outer(msgspec.Struct):
        one: Inner
        many: dict[str, Inner]
        rest: list[Inner]

    return Outer


def read(kind, start, found):
    start.wait()
    found.append(READ)


for _ in range(100):
    kind, start, found = made(), threading.Barrier(THREADS), []
    threads = [threading.Thread(target=read, args=(kind, start, found)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [value.one.count for value in found] == [1] * THREADS, found
print("read")
"""


@pytest.mark.parametrize(
    "read", ["decoder(kind).decode(DATA)", "convert(msgspec.json.decode(DATA), kind)"]
)
def test_threads_that_are_the_first_to_read_a_type_all_read_it(read: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", FIRST_READS.replace("READ)", f"{read})")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr
