"""A gateway that is killed, at every moment that matters: nothing that was taken is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgefleet.interfaces.retrying import Pauses
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.sinks.running import Forwarding
from edgefleet_gateway.sinks.settings import HttpSettings
from providers.gateway.tests.sinks import forwarder
from providers.gateway.tests.sinks.receiving import Receiver

ROOT = Path(__file__).parents[4]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as receiver:
        yield receiver


@pytest.mark.parametrize("moment", ["before it sends", "between send and answer", "half way"])
def test_a_gateway_that_is_killed_loses_nothing(
    receiver: Receiver, tmp_path: Path, moment: str
) -> None:
    if moment == "before it sends":
        receiver.answers = [(503, {})] * 100_000
    elif moment == "between send and answer":
        receiver.holding.set()
    else:
        receiver.answers = [(204, {})]
        receiver.hold_after = 1
    command = [sys.executable, "-m", forwarder.__name__, receiver.url, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        eventually(lambda: len(receiver.posts) >= (2 if moment == "half way" else 1))
        process.kill()
    receiver.answers = []
    receiver.hold_after = None
    receiver.holding.clear()
    receiver.released.set()
    settings = HttpSettings(kind="http", name="plant", url=receiver.url)
    soon = Pauses(first_s=0.01, most_s=0.02, longest_told_s=0.5)
    with closing(Forwarding([settings], tmp_path, base=tmp_path, pauses=soon)) as again:
        eventually(lambda: next(again.figures()).waiting == 0)
    came = [str(event["id"]) for post in receiver.posts for event in post.events]
    assert list(dict.fromkeys(came)) == forwarder.IDS
    if moment == "half way":
        assert came.count(forwarder.IDS[0]) == 1  # it was answered
