"""``loop.yaml``: what is wrong is refused with its line."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.loop.reading import MAX_BYTES, read_spec

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
name: keep-signs
model: signs
groups: [line-3]
trigger:
  drift: {features: 0.2, devices: 0.5}
  schedule: "0 3 * * 1"
  labelled: 200
dataset:
  strategy: hard-examples
  since: 14d
train:
  script: train.py
  params: {epochs: 3}
compare:
  frozen: frozen.npz
  metric: judge.py:rate
shadow:
  requests: 100
  lasts: 24h
  min_agreement: 0.9
limits:
  every: 12h
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "frozen.npz").write_bytes(b"")
    return tmp_path


def refused(folder: Path, text: str) -> str:
    path = folder / "loop.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInputError) as refusal:
        read_spec(path)
    return str(refusal.value)


def test_a_file_becomes_a_loop_with_paths_from_its_own_folder(folder: Path) -> None:
    path = folder / "loop.yaml"
    path.write_text(GOOD)
    spec = read_spec(path)
    assert spec.train.script == folder / "train.py"
    assert spec.compare.metric == f"{folder / 'judge.py'}:rate"
    assert (spec.dataset.since, spec.limits.every) == (timedelta(days=14), timedelta(hours=12))


@pytest.mark.parametrize(
    "changed,line,said",
    [
        (("model: signs", "modle: signs"), 2, "modle: is unknown"),
        (("  labelled: 200", "  labeled: 200"), 7, "trigger.labeled: is unknown"),
        (("  labelled: 200", "  labelled: 0"), 7, "greater than or equal to 1"),
        (('"0 3 * * 1"', '"0 3 * 1"'), 6, "is no cron expression"),
        (("since: 14d", "since: 14 days"), 10, "write 90s, 30m, 24h or 7d"),
        (("script: train.py", "script: gone.py"), 12, "no training script at"),
        (("frozen.npz", "gone.npz"), 15, "no frozen test set at"),
        (("  requests: 100\n  lasts: 24h\n", ""), 17, "say how long the shadow runs"),
        (("  min_agreement: 0.9\n", ""), 17, "say what it must prove"),
        (("min_agreement: 0.9", "min_agreement: 1.9"), 20, "less than or equal to 1"),
        (("lasts: 24h", "lasts: 15d"), 17, "gives_up must be longer than lasts"),
        (("  every: 12h", "  every: 99999999999d"), 22, "longer than ten years"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    folder: Path, changed: tuple[str, str], line: int, said: str
) -> None:
    found = refused(folder, GOOD.replace(*changed))
    assert f"loop.yaml, line {line}: " in found
    assert said in found


def test_what_is_missing_is_named(folder: Path) -> None:
    assert "groups: Field required" in refused(folder, GOOD.replace("groups: [line-3]\n", ""))


def test_a_key_that_is_written_twice_is_refused(folder: Path) -> None:
    assert "line 3: 'model' is written twice" in refused(
        folder, GOOD.replace("groups:", "model: others\ngroups:")
    )


def test_aliases_are_refused(folder: Path) -> None:
    text = GOOD.replace("[line-3]", "&all [line-3]") + "x: *all\n"
    assert "line 23: an alias (*all)" in refused(folder, text)


def test_tags_that_would_make_objects_are_refused(folder: Path) -> None:
    text = GOOD.replace("name: keep-signs", "name: !!python/object/apply:os.getcwd []")
    assert "is no YAML" in refused(folder, text)


@pytest.mark.parametrize("text", ["", "- a", "{", "name: [", "\x00", "a: b: c"])
def test_what_is_no_loop_at_all_is_refused(folder: Path, text: str) -> None:
    assert "cure" in refused(folder, text)


def test_a_huge_file_is_refused_before_it_is_parsed(folder: Path) -> None:
    assert "are allowed" in refused(folder, "#" * (MAX_BYTES + 1))


def test_a_file_that_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="No such file"):
        read_spec(folder / "gone.yaml")
