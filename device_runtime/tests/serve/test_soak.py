"""A cut of `benchmarks/soak.py`: rounds are counted instead of minutes, and no clock judges."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import judged, server, soak
from benchmarks.soaking.callers import BadCaller
from benchmarks.soaking.clients import BadClient

ROUNDS = 5  # each bad client is ended so often before the soak is over


def some_have_not_been_ended(bad: list[BadClient | BadCaller]) -> bool:
    return any(client.is_alive() and client.rounds < ROUNDS for client in bad)


@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="only Linux tells what is open there"
)
def test_bad_clients_cost_good_ones_no_answer_and_leave_nothing_behind() -> None:
    with server(timeout_s=0.5) as soaked:
        found = soak(soaked, goes_on=some_have_not_been_ended, every_s=0.5)
    assert judged(found) == []
    assert all(rounds >= ROUNDS for rounds in found.rounds.values())
