"""``once --inbox``: what gathered while a device slept is answered; no file is lost, none twice."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_runtime.tests.node.device import publish
from device_runtime.tests.support import Repository
from edgefleet.protocol.event import Event, HealthEvent, Prediction, Sample, SketchWindow
from edgefleet.protocol.policy import (
    AlarmRule,
    CaptureRule,
    DriftPolicy,
    TelemetryPolicy,
)
from edgefleet.protocol.segment import read_segment
from edgefleet_runtime.cli import main
from edgefleet_runtime.commands.once import DONE, REJECTED, UNDELIVERED, UNFINISHED
from edgefleet_runtime.faults import VARIABLE
from edgefleet_runtime.inbox import UNREADABLE

if TYPE_CHECKING:
    from edgefleet.protocol.layout import BundleLayout

X = np.array([[1, 2, 3, 4]], np.float32)


class Cycle:
    """A device that sleeps, its fleet and its inbox."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inbox = root / "inbox"
        self.outbox = root / "outbox"
        self.repository = Repository(root / "fleet")
        self.inbox.mkdir()

    def point(self, policy: TelemetryPolicy | None = None, **models: BundleLayout) -> None:
        models = models or {"digits": publish(self.repository, 2.0)}
        release = self.repository.release(models, telemetry=policy or TelemetryPolicy())
        self.repository.point(release)

    @property
    def arguments(self) -> list[str]:
        return [
            *("once", "--root", str(self.root / "data"), "--device", "cam-07"),
            *("--channel", "file", "-o", f"pointer={self.repository.pointer_path}"),
            *("-o", f"outbox={self.outbox}", "--inbox", str(self.inbox), "--timeout", "60"),
        ]

    def once(self, *more: str) -> int:
        return main([*self.arguments, *more])

    def killed_at(self, point: str) -> int:
        done = subprocess.run(
            [sys.executable, "-m", "edgefleet_runtime", *self.arguments],
            env={**os.environ, VARIABLE: point},
            capture_output=True,
            timeout=300,
            check=False,
        )
        return done.returncode

    def json(self, name: str, value: float = 1.0, model: str = "digits") -> Path:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4}
        return self.put(f"{model}/{name}.json", json.dumps({"inputs": [tensor]}).encode())

    def npy(self, name: str, array: np.ndarray, model: str = "digits") -> Path:
        stream = io.BytesIO()
        np.save(stream, array)
        return self.put(f"{model}/{name}.npy", stream.getvalue())

    def put(self, name: str, data: bytes) -> Path:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def events(self) -> list[Event]:
        """All that the fleet has got, as often as it got it."""
        found: list[Event] = []
        for path in sorted(self.outbox.rglob("*.ndjson*")):
            if path.suffix == ".zst":
                found += read_segment(io.BytesIO(path.read_bytes()))
        return found

    def predictions(self) -> dict[str, Prediction]:
        """By id, as a receiver knows them."""
        events = {event.id: event.payload() for event in self.events()}
        return {key: data for key, data in events.items() if isinstance(data, Prediction)}

    def left(self) -> list[str]:
        return sorted(p.name for p in self.inbox.rglob("*") if p.is_file())


@pytest.fixture
def cycle(tmp_path: Path) -> Cycle:
    return Cycle(tmp_path)


def test_files_of_names_that_are_no_text_are_answered_and_set_aside_as_others(
    cycle: Cycle,
) -> None:
    cycle.point()
    for name, data in {
        b"\xe9-1.npy": cycle.npy("good", X).read_bytes(),
        b"\xe9-2.npy": b"",
    }.items():
        (cycle.inbox / "digits" / os.fsdecode(name)).write_bytes(data)
    assert cycle.once() == DONE
    found = {prediction.request for prediction in cycle.predictions().values()}
    assert found == {"digits/good.npy", "digits/\\udce9-1.npy"}
    assert [name.partition("-")[2] for name in cycle.left()] == ["\udce9-2.npy"]


def test_what_has_gathered_is_answered_and_gone(
    cycle: Cycle, capsys: pytest.CaptureFixture[str]
) -> None:
    cycle.point()
    for number in range(5):
        cycle.json(f"{number}", number)
    cycle.npy("row", np.array([7, 7, 7, 7], np.float64))
    cycle.npy("rows", np.array([[8] * 4], np.float32), model="digits.1")
    assert cycle.once() == DONE
    assert cycle.left() == []
    assert "7 files answered" in capsys.readouterr().out
    found = {data.request: data for data in cycle.predictions().values()}
    values = {name: data.outputs[0].values[0] for name, data in found.items()}
    assert values == {
        **{f"digits/{number}.json": 2.0 * number for number in range(5)},
        "digits/row.npy": 14.0,
        "digits.1/rows.npy": 16.0,
    }


def test_files_that_are_still_being_written_wait(cycle: Cycle) -> None:
    cycle.point()
    cycle.put("digits/.hidden.json", b"{")
    cycle.put("digits/half.json.partial", b"{")
    assert cycle.once() == DONE
    assert cycle.left() == [".hidden.json", "half.json.partial"]


def test_files_of_a_model_that_is_not_here_wait(cycle: Cycle) -> None:
    cycle.point()
    cycle.json("a")
    cycle.json("b", model="other")
    cycle.json("c", model="digits.9")
    assert cycle.once() == UNFINISHED
    assert cycle.left() == ["b.json", "c.json"]
    cycle.point(digits=publish(cycle.repository, 2.0), other=publish(cycle.repository, 3.0))
    assert cycle.once() == UNFINISHED
    assert cycle.left() == ["c.json"]


@pytest.mark.parametrize(
    "name, content",
    [
        ("torn.json", b'{"inputs": [{"name": "x"'),
        ("other.json", b'{"inputs": [{"name":"z","datatype":"FP32","shape":[1],"data":[1]}]}'),
        ("notes.txt", b"hello"),
        ("torn.npy", b"\x93NUMPY\x01\x00"),
        ("empty.json", b""),
    ],
)
def test_what_cannot_be_read_is_set_aside_and_told(cycle: Cycle, name: str, content: bytes) -> None:
    cycle.point()
    cycle.json("good")
    cycle.put(f"digits/{name}", content)
    assert cycle.once() == DONE
    (aside,) = (cycle.inbox / UNREADABLE / "digits").iterdir()
    assert aside.name.endswith(f"-{name}")
    assert aside.read_bytes() == content
    assert len(cycle.predictions()) == 1
    told = [event.payload() for event in hot(cycle)]
    assert [t.message for t in told if isinstance(t, HealthEvent) and name in t.message]


def test_a_pickled_array_is_never_loaded(cycle: Cycle) -> None:
    cycle.point()
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    cycle.put("digits/evil.npy", stream.getvalue())
    assert cycle.once() == DONE
    assert len(list((cycle.inbox / UNREADABLE / "digits").iterdir())) == 1


def test_what_ran_before_answers_where_the_release_asked_for_is_rejected(cycle: Cycle) -> None:
    cycle.point()
    assert cycle.once() == DONE
    cycle.point(digits=publish(cycle.repository, 3.0, recorded=5.0))
    cycle.json("a")
    assert cycle.once() == REJECTED
    (data,) = cycle.predictions().values()
    assert data.outputs[0].values[0] == 2.0


def test_links_are_not_followed(cycle: Cycle) -> None:
    cycle.point()
    outside = cycle.put("../outside.json", b"{}")
    (cycle.inbox / "digits").mkdir()
    (cycle.inbox / "digits" / "link.json").symlink_to(outside)
    (cycle.inbox / "other").symlink_to(cycle.inbox / "digits")
    assert cycle.once() == DONE
    assert outside.exists()
    assert (cycle.inbox / "digits" / "link.json").is_symlink()


def test_the_policys_share_counts(cycle: Cycle) -> None:
    cycle.point(TelemetryPolicy(prediction_fraction=0.0))
    cycle.json("a")
    assert cycle.once() == DONE
    assert (cycle.left(), cycle.predictions()) == ([], {})


def test_offline_everything_is_kept_for_the_next_time(cycle: Cycle) -> None:
    cycle.point()
    assert cycle.once() == DONE
    cycle.outbox.rename(cycle.root / "away")
    cycle.outbox.write_text("in the way")
    cycle.json("a")
    assert cycle.once() == UNDELIVERED
    assert cycle.left() == []
    cycle.outbox.unlink()
    cycle.json("b")
    assert cycle.once() == DONE
    requests = {data.request for data in cycle.predictions().values()}
    assert requests == {"digits/a.json", "digits/b.json"}


def test_the_same_name_and_content_another_day_counts_again(cycle: Cycle) -> None:
    cycle.point()
    for day in range(2):
        path = cycle.json("latest")
        os.utime(path, (1e9 + day, 1e9 + day))
        assert cycle.once() == DONE
    assert len(cycle.predictions()) == 2


@pytest.mark.parametrize(
    "point", ["inbox.predicted", "inbox.kept", "inbox.removed:1", "inbox.removed:3"]
)
def test_killed_anywhere_no_prediction_is_lost_and_none_counts_twice(
    cycle: Cycle, point: str
) -> None:
    cycle.point()
    for number in range(4):
        cycle.json(f"{number}", number)
    assert cycle.killed_at(point) < 0
    assert cycle.once() == DONE
    assert cycle.left() == []
    requests = sorted(data.request or "" for data in cycle.predictions().values())
    assert requests == [f"digits/{number}.json" for number in range(4)]


def test_alarms_samples_and_drift_come_of_what_gathered(cycle: Cycle) -> None:
    policy = TelemetryPolicy(
        alarms=(AlarmRule(name="high", model="digits", when="values[0] > 100.0"),),
        captures=(CaptureRule(name="high", when="values[0] > 100.0", inputs=True),),
        drift=DriftPolicy(window_s=0.01),
        inputs=("digits/x",),
    )
    cycle.point(policy)
    cycle.json("low", 1.0)
    cycle.json("high", 90.0)
    assert cycle.once() == DONE
    assert cycle.once() == DONE  # the window has ended by now
    samples = [data for data in payloads(cycle) if isinstance(data, Sample)]
    assert [list(sample.inputs) for sample in samples] == [["x"]]
    windows = [data for data in payloads(cycle) if isinstance(data, SketchWindow)]
    assert sum(window.requests for window in windows) == 2
    alarms = [event for event in hot(cycle) if event.kind == "alarm"]
    assert len(alarms) == 1


def payloads(cycle: Cycle) -> list[object]:
    events = cycle.events()
    assert len({event.id for event in events}) == len(events), "nothing is sent twice"
    return [event.payload() for event in events]


def hot(cycle: Cycle) -> list[Event]:
    """What was sent at once."""
    from edgefleet.protocol.event import read_event

    lines = [
        line for path in cycle.outbox.rglob("*.ndjson") for line in path.read_bytes().splitlines()
    ]
    return [read_event(line) for line in lines]
