"""``once``: what a device that sleeps does between waking and sleeping, in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.node.device import publish
from device_runtime.tests.support import OTHER_FLEET, Repository
from edgefleet.protocol.report import Report, read_report
from edgefleet_runtime.cli import main
from edgefleet_runtime.commands.once import DONE, REJECTED, UNDELIVERED, UNFINISHED

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "fleet")


def once(root: Path, repository: Repository, *more: str) -> int:
    return main(
        [
            *("once", "--root", str(root / "data"), "--device", "cam-07", "--channel", "file"),
            *("-o", f"pointer={repository.pointer_path}", "-o", f"outbox={root / 'outbox'}"),
            *("--timeout", "20", *more),
        ]
    )


def report(root: Path) -> Report:
    return read_report((root / "outbox" / "report.json").read_bytes())


def test_it_brings_what_the_fleet_asks_for_and_attests_it(
    tmp_path: Path, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    release = repository.release({"digits": publish(repository, 2.0)})
    repository.point(release)
    assert once(tmp_path, repository, "--json") == DONE
    assert json.loads(capsys.readouterr().out)["running"] == release
    attested = report(tmp_path)
    assert (attested.state, attested.running, attested.endpoint) == ("active", release, None)
    assert list((tmp_path / "outbox").rglob("*.ndjson*")), "its start was told as an event"


def test_the_second_call_needs_no_source(tmp_path: Path, repository: Repository) -> None:
    release = repository.release({"digits": publish(repository, 2.0)})
    repository.point(release)
    assert once(tmp_path, repository) == DONE
    repository.source.rename(tmp_path / "gone")
    assert once(tmp_path, repository) == DONE
    assert report(tmp_path).health.starts == 2


def test_a_release_that_was_brought_counts_as_good(tmp_path: Path, repository: Repository) -> None:
    good = repository.release({"digits": publish(repository, 2.0)})
    repository.point(good)
    assert once(tmp_path, repository) == DONE
    assert json.loads((tmp_path / "data" / "state.json").read_bytes())["good"] == good


def test_a_release_that_fails_its_self_test_is_rejected(
    tmp_path: Path, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.point(repository.release({"digits": publish(repository, 2.0, recorded=5.0)}))
    assert once(tmp_path, repository) == REJECTED
    assert report(tmp_path).state == "rejected"


@pytest.mark.parametrize("bad", ["not a pointer", "an older one", "of another fleet"])
def test_a_pointer_that_is_refused_is_told_each_time(
    tmp_path: Path, repository: Repository, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    release = repository.release({"digits": publish(repository, 2.0)})
    repository.point(release)
    older = repository.pointer_path.read_bytes()
    repository.point(release)
    assert once(tmp_path, repository) == DONE
    if bad == "of another fleet":
        repository.point(release, fleet=OTHER_FLEET)
    else:
        repository.pointer_path.write_bytes(older if bad == "an older one" else b"{")
    for _ in range(2):
        assert once(tmp_path, repository) == REJECTED
        assert "error: pointer refused: " in capsys.readouterr().err
    assert report(tmp_path).running == release, "what ran goes on"
    repository.point(release)
    assert once(tmp_path, repository) == DONE


def test_a_pointer_that_cannot_be_read_is_not_followed(
    tmp_path: Path, repository: Repository
) -> None:
    repository.pointer_path.mkdir(parents=True)
    assert once(tmp_path, repository) == UNFINISHED
    assert "channel: " in report(tmp_path).errors[0]


def test_without_its_source_it_is_not_finished(tmp_path: Path, repository: Repository) -> None:
    repository.point(
        repository.release({"digits": publish(repository, 2.0)}),
        sources=[(tmp_path / "nowhere").as_uri()],
    )
    assert once(tmp_path, repository, "--timeout", "0.01") == UNFINISHED


def test_what_cannot_be_delivered_is_told(tmp_path: Path, repository: Repository) -> None:
    repository.point(repository.release({"digits": publish(repository, 2.0)}))
    (tmp_path / "outbox").write_text("in the way")
    assert once(tmp_path, repository) == UNDELIVERED
