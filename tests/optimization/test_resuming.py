"""An `optimize` that was interrupted goes on where it was."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefleet.optimization import classification, optimize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.optimization import Bundle
    from tests.optimization.conftest import Digits

CANDIDATES = ["int8", "fp16", "fp32-graph", "int8-signed"]
JUDGED = 1 + len(CANDIDATES)  # the model as given too


class Judge:
    """The accuracy of scanned digits: counts its calls, and may be interrupted before one."""

    def __init__(self, digits: Digits, *, interrupted_at: int = 0) -> None:
        self.digits = digits
        self.interrupted_at = interrupted_at
        self.calls = 0

    def digest(self) -> str:
        return "digits"

    def __call__(self, predict: Callable[[Any], Any]) -> float:
        self.calls += 1
        if self.calls == self.interrupted_at:
            raise KeyboardInterrupt
        return self.digits.accuracy(predict)


def made(digits: Digits, evaluate: Callable[[Any], Any], **more: Any) -> Bundle:
    arguments: dict[str, Any] = {"candidates": CANDIDATES, "max_accuracy_drop": 0.02, **more}
    return optimize(
        digits.path,
        targets=["raspberry-pi-5", "jetson-orin"],
        calibration=digits.calibration,
        evaluate=evaluate,
        **arguments,
    )


def test_a_second_call_judges_nothing_and_gives_the_same_bundle(digits: Digits) -> None:
    first, second = Judge(digits), Judge(digits)
    one, two = made(digits, first), made(digits, second)
    assert (first.calls, second.calls) == (JUDGED, 0)
    assert one.digest == two.digest == made(digits, Judge(digits), cache=False).digest
    assert one.report.to_dict()["rows"] == two.report.to_dict()["rows"]


@pytest.mark.parametrize("at", [1, 2, 4])
def test_what_was_judged_before_ctrl_c_is_not_judged_again(digits: Digits, at: int) -> None:
    first, second = Judge(digits, interrupted_at=at), Judge(digits)
    with pytest.raises(KeyboardInterrupt):
        made(digits, first)
    resumed = made(digits, second)
    assert second.calls == JUDGED - (at - 1)
    assert resumed.digest == made(digits, Judge(digits), cache=False).digest


KILLED = """
import os, signal, sys
import numpy as np
from edgefleet.optimization import optimize

data = np.load(sys.argv[2])
calls = 0

class Judge:
    def digest(self):
        return "digits"

    def __call__(self, predict):
        global calls
        calls += 1
        print("judged", flush=True)
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return float((predict(data["x"])["label"] == data["y"]).mean())

bundle = optimize(sys.argv[1], targets=["raspberry-pi-5", "jetson-orin"], calibration=data["c"],
                  evaluate=Judge(), max_accuracy_drop=0.02, candidates=sys.argv[4:])
print(bundle.digest)
"""


def test_what_was_judged_before_a_kill_is_not_judged_again(digits: Digits, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=digits.images, y=digits.labels, c=digits.calibration)
    command = [sys.executable, "-c", KILLED, str(digits.path), str(tmp_path / "data.npz")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    killed = subprocess.run(
        [*command, "3", *CANDIDATES], env=environment, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.split() == ["judged"] * 3
    resumed = subprocess.run(
        [*command, "0", *CANDIDATES], env=environment, capture_output=True, text=True, check=True
    )
    *judged, digest = resumed.stdout.split()
    assert judged == ["judged"] * (JUDGED - 2)
    assert digest == made(digits, Judge(digits), cache=False).digest


def test_the_steps_of_a_search_are_not_judged_again(wide_in_part: Digits) -> None:
    ask = {"candidates": ["int8", "int8-mixed"], "max_accuracy_drop": 0.01}
    whole, again = Judge(wide_in_part), Judge(wide_in_part)
    due = made(wide_in_part, whole, **ask, cache=False)
    assert due.report.row("int8-mixed").outcome == "shipped"
    interrupted = Judge(wide_in_part, interrupted_at=whole.calls)
    with pytest.raises(KeyboardInterrupt):
        made(wide_in_part, interrupted, **ask)
    assert whole.calls > 3, "or nothing is searched here"
    assert made(wide_in_part, again, **ask).digest == due.digest
    assert again.calls == 1


def test_a_search_is_made_anew_for_another_gate(wide_in_part: Digits) -> None:
    ask = {"candidates": ["int8", "int8-mixed"]}
    strict = made(wide_in_part, Judge(wide_in_part), **ask, max_accuracy_drop=0.01)
    loose = made(wide_in_part, Judge(wide_in_part), **ask, max_accuracy_drop=0.9)
    assert strict.report.row("int8-mixed").outcome == "shipped"
    assert loose.report.row("int8").outcome == "shipped"
    tighter = made(wide_in_part, Judge(wide_in_part), **ask, max_accuracy_drop=0.0)
    due = made(wide_in_part, Judge(wide_in_part), **ask, max_accuracy_drop=0.0, cache=False)
    assert tighter.digest == due.digest


def test_another_evaluation_is_judged_on_the_same_files(
    digits: Digits, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def judging(labels: Any) -> Callable[[Any], float]:
        images = digits.images

        def evaluate(predict: Callable[[Any], Any]) -> float:
            print("judged")  # noqa: T201 - a count that is no part of what it computes with
            return float((predict(images)["label"] == labels).mean())

        return evaluate

    for labels, calls in (
        (digits.labels, JUDGED),
        (digits.labels.copy(), 0),
        (digits.labels[::-1], JUDGED),
    ):
        made(digits, judging(labels), max_accuracy_drop=1.0)
        assert capsys.readouterr().out.split() == ["judged"] * calls
    assert len([path for path in (kept / "v1").iterdir() if path.name.startswith("made-")]) == len(
        CANDIDATES
    )


def test_an_evaluate_that_changes_what_it_uses_is_judged_each_time(digits: Digits) -> None:
    calls: list[int] = []

    def evaluate(predict: Callable[[Any], Any]) -> float:
        calls.append(1)
        return 1.0

    for _ in range(2):
        made(digits, evaluate)
    assert len(calls) == 2 * JUDGED


def test_within_a_call_nothing_is_judged_twice(wide_in_part: Digits) -> None:
    judge = Judge(wide_in_part)
    seen: set[int] = set()

    def evaluate(predict: Callable[[Any], Any]) -> float:
        seen.add(hash(predict(wide_in_part.images)["probabilities"].tobytes()))
        return judge(predict)

    made(wide_in_part, evaluate, candidates=["int8", "int8-mixed"], max_accuracy_drop=0.01)
    assert judge.calls == len(seen)


def test_without_a_cache_nothing_is_kept(digits: Digits, kept: Path) -> None:
    made(digits, Judge(digits), cache=False)
    assert not kept.exists()


def test_a_cache_of_ones_own_is_used(digits: Digits, kept: Path, tmp_path: Path) -> None:
    made(digits, Judge(digits), cache=tmp_path / "mine")
    again = Judge(digits)
    made(digits, again, cache=tmp_path / "mine")
    assert again.calls == 0
    assert not kept.exists()


def test_spoiled_entries_are_made_anew(digits: Digits, kept: Path) -> None:
    due = made(digits, Judge(digits))
    spoiled = 0
    for path in (kept / "v1").glob("*/*"):
        if path.parent.name.startswith("made-") != (path.name == "entry.json"):
            path.write_bytes(path.read_bytes()[:-1] + b"?")
            spoiled += 1
    again = Judge(digits)
    assert made(digits, again).digest == due.digest
    assert spoiled == JUDGED + 2 * len(CANDIDATES)
    assert again.calls == JUDGED


def test_classification_is_kept_by_its_data(digits: Digits, kept: Path) -> None:
    for labels, scores in ((digits.labels, JUDGED), (digits.labels[::-1], 2 * JUDGED)):
        bundle = made(digits, classification(digits.images, labels), max_accuracy_drop=1.0)
        assert bundle.report.row("int8").worst_class is not None
        found = [p for p in (kept / "v1").iterdir() if p.name.startswith("scores-")]
        assert len(found) == scores


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_sees_the_candidate_in_hand(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    shown = Terminal()
    with redirect_stderr(shown):
        made(digits, Judge(digits), name="digits")
    text = shown.getvalue()
    for part in ("digits: 1/4 int8: calibrating, ", "digits: 3/4 fp16: evaluating", "5/5"):
        assert part in text


def test_nobody_looking_sees_nothing(digits: Digits) -> None:
    shown = io.StringIO()
    with redirect_stderr(shown):
        made(digits, Judge(digits))
    assert shown.getvalue() == ""


def test_an_evaluate_without_a_fingerprint_is_told_the_cure(
    digits: Digits, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = np.random.default_rng(0)
    caplog.set_level(logging.INFO, "edgefleet.optimization")
    made(digits, lambda predict: 0.9 + drawn.random() / 1e6)
    assert "use edgefleet.classification" in caplog.text
