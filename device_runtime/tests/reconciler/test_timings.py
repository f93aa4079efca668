"""Figures on the disk: of this machine, over restarts, and not for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet_runtime.reconciler import timings as t
from edgefleet_runtime.reconciler.timings import TimingsFile, fingerprint

if TYPE_CHECKING:
    from pathlib import Path

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_figures_outlive_a_restart(tmp_path: Path) -> None:
    TimingsFile(tmp_path, "m").save(A, p50_us=5.0, p95_us=6.0, memory_bytes=7)
    record = TimingsFile(tmp_path, "m").get(A)
    assert (record.p50_us, record.p95_us, record.memory_bytes, record.trusted) == (5, 6, 7, True)


def test_figures_of_another_machine_count_only_there(tmp_path: Path) -> None:
    TimingsFile(tmp_path, "m").save(A, p50_us=5.0)
    TimingsFile(tmp_path, "other").save(A, p50_us=9.0)
    assert TimingsFile(tmp_path, "third").get(A).p50_us is None
    assert TimingsFile(tmp_path, "m").get(A).p50_us == 5.0


def test_the_oldest_figures_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t, "MAX_RECORDS", 2)
    file = TimingsFile(tmp_path, "m")
    for variant in (A, B, A, "sha256:" + "c" * 64):
        file.save(variant, p50_us=1.0)
    assert file.get(A).trusted
    assert not file.get(B).trusted


def test_a_file_that_cannot_be_read_costs_the_figures_alone(tmp_path: Path) -> None:
    (tmp_path / t.FILE).write_bytes(b"{half")
    file = TimingsFile(tmp_path, "m")
    assert file.get(A).p50_us is None
    file.save(A, p50_us=1.0)
    assert TimingsFile(tmp_path, "m").get(A).trusted


LABELS = {"arch": "x86_64", "cpu": "some", "os": "a"}


@pytest.mark.parametrize("change", ["cpu", "providers", "library", "driver"])
def test_a_fingerprint_changes_with_what_figures_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    before = fingerprint(LABELS, providers=("CPU",), root=tmp_path)
    assert fingerprint({**LABELS, "os": "b"}, providers=("CPU",), root=tmp_path) == before
    if change == "library":
        (tmp_path / "site" / "onnxruntime_gpu-99.0.dist-info").mkdir(parents=True)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
    if change == "driver":
        (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
        (tmp_path / "proc/driver/nvidia/version").write_text("580.65.06")
    after = fingerprint(
        {**LABELS, "cpu": "other"} if change == "cpu" else LABELS,
        providers=("CPU", "CUDA") if change == "providers" else ("CPU",),
        root=tmp_path,
    )
    assert after != before


def test_libraries_that_open_no_model_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(LABELS, root=tmp_path)
    (tmp_path / "requests-99.0.dist-info").mkdir()
    (tmp_path / "onnxruntime").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert fingerprint(LABELS, root=tmp_path) == before


@pytest.mark.parametrize("name", ["onnxruntime_gpu-1.2.dist-info", "OpenVINO-1.2.egg-info"])
def test_another_version_of_a_library_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = {fingerprint(LABELS, root=tmp_path)}
    (tmp_path / name).mkdir()
    seen.add(fingerprint(LABELS, root=tmp_path))
    (tmp_path / name).rename(tmp_path / name.replace("1.2", "1.3"))
    seen.add(fingerprint(LABELS, root=tmp_path))
    assert len(seen) == 3
