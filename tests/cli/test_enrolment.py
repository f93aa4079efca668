"""`edgefleet device enroll` where devices are enrolled from here: one, and lists with bad lines."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from edgefleet.cli.device_list import Outcome
from tests.cli.conftest import Run, RunJson


@pytest.fixture(autouse=True)
def _profile(run: Run) -> None:
    run("init", "--provider", "local")


def listed(path: Path, *lines: str, encoding: str = "utf-8") -> str:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return str(path)


def test_a_device_is_enrolled_from_here(run: Run, run_json: RunJson) -> None:
    assert "cam-1 is in group line" in run("device", "enroll", "cam-1", "--group", "line").stdout
    found = run_json("device", "enroll", "cam-1", "--group", "line", "--label", "site=north")
    assert (found["name"], found["labels"]["site"]) == ("cam-1", "north")


@pytest.mark.parametrize("words", [(), ("cam-1", "--from", "list.csv"), ("cam-1",)])
def test_a_name_or_a_list_and_a_group_are_asked_for(
    run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    listed(tmp_path / "list.csv", "name,group")
    run("device", "enroll", *words, expect=2)


@pytest.mark.parametrize("words", [("--replace",), ("--expires", "2d")])
def test_what_only_invitations_have_is_refused_where_there_are_none(
    run: Run, words: tuple[str, ...]
) -> None:
    done = run("device", "enroll", "cam-1", "--group", "line", *words, expect=1)
    assert "lacks CanInvite" in done.stderr


def test_a_time_that_is_none_is_refused(run: Run) -> None:
    words = ("device", "enroll", "cam-1", "--group", "line", "--expires")
    for text in ("soon", "1", "-1h", "9e99d", f"{'9' * 400}d"):
        assert "no length of time" in run(*words, text, expect=2).output


def test_a_list_enrols_what_it_can_and_says_what_it_can_not(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    source = listed(
        tmp_path / "list.csv",
        "name,group,site,line",
        "cam-1,line,north,",
        " cam-2 ,,south,7",
        "",
        "cam-3,line",
        "cam-1,line,north,",
        "-bad,line,,",
        "cam-4,bad group,,",
        ",line,,",
        '"cam-5",line,"a, b",',
        encoding="utf-8-sig",
    )
    done = run("device", "enroll", "--from", source, "--group", "other", expect=1)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == list(Outcome._fields)
    assert [(row["line"], row["name"], row["group"], row["outcome"]) for row in rows] == [
        ("2", "cam-1", "line", "enrolled"),
        ("3", "cam-2", "other", "enrolled"),
        ("5", "cam-3", "line", "failed"),
        ("6", "cam-1", "line", "failed"),
        ("7", "-bad", "line", "failed"),
        ("8", "cam-4", "bad group", "failed"),
        ("9", "", "line", "failed"),
        ("10", "cam-5", "line", "enrolled"),
    ]
    reasons = [row["reason"] for row in rows if row["outcome"] == "failed"]
    for reason, words in zip(
        reasons,
        ("2 cells", "in the list twice", "not a device name", "not a group name", "no device"),
        strict=True,
    ):
        assert words in reason
    assert "3 enrolled, 5 failed" in done.stderr
    assert "line 5: cam-3:" in done.stderr
    found = {one["name"]: one for one in run_json("devices")["devices"]}
    assert set(found) == {"cam-1", "cam-2", "cam-5"}
    assert found["cam-2"]["labels"] == {"site": "south", "line": "7"}
    assert found["cam-5"]["labels"] == {"site": "a, b"}


def test_a_list_again_changes_nothing(run: Run, run_json: RunJson, tmp_path: Path) -> None:
    source = listed(tmp_path / "list.csv", "name", "cam-1", "cam-2")
    words = ("device", "enroll", "--from", source, "--group", "line", "--label", "site=north")
    first = run_json(*words)
    assert run_json(*words) == first
    assert first["failed"] == 0
    assert [one["outcome"] for one in first["devices"]] == ["enrolled", "enrolled"]
    assert run_json("devices")["devices"][0]["labels"] == {"site": "north"}


def test_a_device_of_another_group_fails_alone(run: Run, tmp_path: Path) -> None:
    run("device", "enroll", "cam-1", "--group", "other")
    source = listed(tmp_path / "list.csv", "name,group", "cam-1,line", "cam-2,line")
    done = run("device", "enroll", "--from", source, expect=1)
    assert "1 enrolled, 1 failed" in done.stderr
    assert "line 2: cam-1: device 'cam-1' is in group 'other'" in done.stderr


@pytest.mark.parametrize(
    "text, words",
    [
        (b"", "no column called name"),
        (b"device,group\ncam-1,line\n", "no column called name"),
        (b"name,group,name\n", "a column twice"),
        (b"name,,group\n", "one without a name"),
        (b"name\n\xff\xfe\n", "no CSV in UTF-8"),
        (b'name\n"cam-1\n', "no CSV in UTF-8"),
        (b"name\ncam\x00\n", "cam"),
    ],
)
def test_what_is_no_list_enrols_nothing(
    run: Run, run_json: RunJson, tmp_path: Path, text: bytes, words: str
) -> None:
    (tmp_path / "list.csv").write_bytes(text)
    done = run("device", "enroll", "--from", "list.csv", "--group", "line", expect=1)
    assert words in done.stderr
    assert run_json("devices")["devices"] == []


def test_revoking_is_refused_where_the_provider_can_not(run: Run) -> None:
    run("device", "enroll", "cam-1", "--group", "line")
    assert "lacks CanInvite" in run("device", "revoke", "cam-1", "--yes", expect=1).stderr
