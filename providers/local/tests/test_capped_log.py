from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgefleet.interfaces.training_run import METRIC_PREFIX
from edgefleet_local import capped_log
from edgefleet_local.capped_log import CappedLog

METRIC = b'edgefleet-metric {"name": "loss", "value": 1.5}'


def _kept(path: Path, *pieces: bytes, max_bytes: int, max_metric_bytes: int = 1000) -> bytes:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        log = CappedLog(handle, max_bytes=max_bytes, max_metric_bytes=max_metric_bytes)
        for piece in pieces:
            log.write(piece)
    finally:
        os.close(handle)
    return path.read_bytes()


def test_what_fits_is_kept_as_it_is(tmp_path: Path) -> None:
    assert _kept(tmp_path / "log", b"a\n", b"\xff", max_bytes=3) == b"a\n\xff"


def test_the_rest_is_dropped_and_said_once(tmp_path: Path) -> None:
    kept = _kept(tmp_path / "log", b"12345678", b"9\n", b"more\n" * 1000, max_bytes=4)
    assert kept.startswith(b"1234\n[edgefleet: output over 4 bytes is not kept")
    assert kept.count(b"\n") == 2


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_metrics_are_kept_wherever_the_limit_falls(tmp_path: Path, cut: int) -> None:
    text = b"x" * 10 + b"\n" + METRIC + b"\nnoise\n" + METRIC + b"\n"
    kept = _kept(tmp_path / "log", text[:cut], text[cut:], max_bytes=cut)
    assert kept.split(b"\n").count(METRIC) == 2


def test_metrics_have_a_limit_too(tmp_path: Path) -> None:
    kept = _kept(tmp_path / "log", (METRIC + b"\n") * 50, max_bytes=0, max_metric_bytes=200)
    assert kept.count(METRIC) == 4


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    handle = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log = CappedLog(handle, max_bytes=0)
    for _ in range(100):
        log.write(b"x" * 100_000)
    os.close(handle)
    assert len(log._line) <= 1 << 16


def test_a_full_disk_is_not_the_scripts_business() -> None:
    handle = os.open("/dev/full", os.O_WRONLY)
    CappedLog(handle, max_bytes=100).write(b"text\n")
    os.close(handle)


def test_the_prefix_of_metrics_is_the_interfaces() -> None:
    assert capped_log.METRIC_PREFIX == METRIC_PREFIX
