"""Captures by the policy's rules, through a real spool to the channel."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime.tests.support import Clock, MemoryChannel
from device_runtime.tests.watch.seeing import START, release, seen
from edgefleet.errors import UnavailableError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.event import EventData, HealthEvent, Sample
from edgefleet.protocol.policy import CaptureRule
from edgefleet.protocol.segment import read_segment
from edgefleet_runtime.redaction import Redactor
from edgefleet_runtime.serve.capture import npy
from edgefleet_runtime.spool.recorders import SpoolRecorder
from edgefleet_runtime.spool.spool import Spool
from edgefleet_runtime.watch.capturing import HOUR_S, TELL_S, Capturer
from edgefleet_runtime.watch.keeping import Keeper

ALL = ("*/*",)
SECRET = (
    np.frombuffer(b"a face that nobody may ever see!", np.uint8).reshape(1, 1, 4, 8).repeat(4, 2)
)


class Bench:
    """A capturer over a spool, whose channel has taken everything after `samples`."""

    def __init__(self, root: Path, *, max_bytes: int = 1 << 20) -> None:
        self.root = root
        self.channel = MemoryChannel()
        self.clock = Clock()
        self.spool = Spool(root, self.channel, device="cam-07", max_bytes=1 << 24, clock=self.clock)
        self.told: list[EventData] = []
        self.redactor = Redactor(self.told.append)
        self.keeper = Keeper(
            SpoolRecorder(self.spool), self.redactor, lambda _: {}, max_bytes=max_bytes
        )
        self.capturer = Capturer(self.keeper, self.told.append)

    def follow(self, *rules: CaptureRule, **policy: Any) -> None:
        self.capturer.follow(release(captures=rules, **policy))

    def see(self, number: int = 0, *, score: float = 0.9, **more: Any) -> None:
        y = np.array([[score, 1 - score]], np.float32)
        x = more.pop("x", np.full((1, 4), number, np.float32))
        about = {"time": START + number, "at": self.clock.now, **more}
        one = seen({"x": x}, {"y": y}, version=str(number), **about)
        if one.disagrees is None:
            self.capturer.see(one)
        else:
            self.capturer.see_compared(one)

    def samples(self) -> list[Sample]:
        self.keeper.flush()
        self.spool.finish()
        segments = [data for name, data in self.channel.segments.items() if "ndjson" in name]
        events = [event for data in segments for event in read_segment(io.BytesIO(data))]
        found = [event.payload() for event in events]
        return sorted(
            (s for s in found if isinstance(s, Sample)), key=lambda s: int(s.model_version)
        )

    def taken(self) -> list[int]:
        return [int(sample.model_version) for sample in self.samples()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.capturer.close()


def test_every_nth_is_captured(bench: Bench) -> None:
    bench.follow(CaptureRule(name="some", every=3))
    for number in range(8):
        bench.see(number)
    assert bench.taken() == [0, 3, 6]


def test_where_a_condition_holds_every_nth_of_those(bench: Bench) -> None:
    bench.follow(CaptureRule(name="unsure", when="score < 0.6", every=2))
    for number in range(8):
        bench.see(number, score=0.55 if number % 2 else 0.9)
    assert bench.taken() == [1, 5]


def test_another_models_requests_are_left_out(bench: Bench) -> None:
    bench.follow(CaptureRule(name="some", model="other"))
    bench.see(1)
    bench.see(2, model="other")
    assert bench.taken() == [2]


def test_a_sample_tells_what_was_asked_and_answered(bench: Bench) -> None:
    bench.follow(CaptureRule(name="unsure", inputs=True), inputs=ALL)
    bench.see(7, score=0.75)
    (sample,) = bench.samples()
    x = npy(np.full((1, 4), 7, np.float32))
    assert (sample.reason, sample.bundle, sample.inputs) == (
        "unsure", "sha256:a", {"x": digest_of(x)},
    )  # fmt: skip
    (answer,) = sample.answers
    assert (answer.name, answer.top, answer.score) == ("y", (0,), (0.75,))
    names = {name.rpartition("/")[2]: data for name, data in bench.channel.segments.items()}
    assert names[digest_of(x).partition(":")[2]] == x
    assert np.load(io.BytesIO(names[sample.outputs["y"].partition(":")[2]])).shape == (1, 2)


def test_inputs_are_stored_once_by_digest(bench: Bench) -> None:
    bench.follow(CaptureRule(name="all", inputs=True), inputs=ALL)
    for number in range(3):
        bench.see(number, x=np.ones((1, 4), np.float32))
    samples = bench.samples()
    assert len(samples) == 3
    assert len({sample.inputs["x"] for sample in samples}) == 1
    assert sum(name.startswith("samples/") for name in bench.channel.segments) == 2


@pytest.mark.parametrize(
    "rule, policy",
    [
        (CaptureRule(name="all"), {"inputs": ALL}),
        (CaptureRule(name="all", inputs=True), {}),
        (CaptureRule(name="all", inputs=True), {"inputs": ("digits/other",)}),
        (CaptureRule(name="all", inputs=True), {"inputs": ALL, "redact": {"*/*": ("drop",)}}),
        (CaptureRule(name="all", inputs=True), {"inputs": ALL, "redact": {"*/*": ("gone",)}}),
    ],
)
def test_without_leave_of_rule_policy_and_hooks_no_input_is_kept(
    bench: Bench, rule: CaptureRule, policy: dict[str, Any]
) -> None:
    bench.follow(rule, **policy)
    bench.see(x=SECRET)
    bench.keeper.flush()
    bench.spool.turn()
    _no_secret_below(bench.root)
    (sample,) = bench.samples()
    assert (sample.inputs, list(sample.outputs)) == ({}, ["y"])


@pytest.mark.parametrize("hook", ["pixelate:4", "blur:4", "noise"])
def test_no_byte_reaches_the_disk_before_it_is_redacted(bench: Bench, hook: str) -> None:
    bench.channel.fails = UnavailableError("offline")  # everything stays here
    around = CaptureRule(name="around", alarm="hot", before=4, after=1, inputs=True)
    redact = {"digits/x": (hook,)}
    bench.follow(CaptureRule(name="all", inputs=True), around, inputs=ALL, redact=redact)
    for number in range(4):
        bench.see(number, x=SECRET)
    bench.capturer.began("hot", "digits", bench.clock.now)
    bench.see(4, x=SECRET)
    bench.keeper.flush()
    bench.spool.turn()
    files = _no_secret_below(bench.root)
    assert any(path.parent.name == "sha256" for path in files), "but what was redacted does"
    bench.channel.fails = None
    samples = bench.samples()
    assert {sample.redacted["x"] for sample in samples} == {(hook,)}
    assert Counter(sample.reason for sample in samples) == {"all": 5, "around": 5}


def test_where_no_redaction_is_asked_for_the_search_finds_the_bytes(bench: Bench) -> None:
    bench.channel.fails = UnavailableError("offline")
    bench.follow(CaptureRule(name="all", inputs=True), inputs=ALL)
    bench.see(x=SECRET)
    bench.keeper.flush()
    with pytest.raises(AssertionError, match="sha256"):
        _no_secret_below(bench.root)


def _no_secret_below(root: Path) -> list[Path]:
    files = [path for path in root.rglob("*") if path.is_file()]
    row = SECRET[0, 0, 0].tobytes()
    assert files
    for path in files:
        data = path.read_bytes()
        assert row not in data, path
        assert row[::-1] not in data, path
    return files


def test_an_hour_takes_no_more_than_it_may(bench: Bench) -> None:
    bench.follow(CaptureRule(name="some", per_hour=2))
    for number in range(5):
        bench.see(number)
    bench.clock.now += HOUR_S
    for number in range(5, 10):
        bench.see(number)
    assert bench.taken() == [0, 1, 5, 6]


def test_around_an_alarm_what_came_before_and_after_is_captured(bench: Bench) -> None:
    bench.follow(CaptureRule(name="around", alarm="hot", before=2, after=1))
    for number in range(5):
        bench.see(number)
    bench.capturer.began("hot", "digits", bench.clock.now)
    for number in range(5, 9):
        bench.see(number)
    assert bench.taken() == [3, 4, 5, 6], "5 raised it"


def test_around_an_alarm_of_a_stream_every_model_is_captured(bench: Bench) -> None:
    bench.follow(CaptureRule(name="around", alarm="hot", before=2, after=1))
    bench.see(1)
    bench.see(2, model="other")
    bench.capturer.began("hot", None, bench.clock.now)
    bench.see(3)
    bench.see(4)
    assert bench.taken() == [1, 2, 3]


def test_another_alarm_captures_nothing(bench: Bench) -> None:
    bench.follow(CaptureRule(name="around", alarm="hot", before=2, after=1))
    bench.see(1)
    bench.capturer.began("cold", "digits", bench.clock.now)
    bench.see(2)
    assert bench.taken() == []


def test_nothing_is_held_where_no_rule_asks_for_what_came_before(bench: Bench) -> None:
    bench.follow(CaptureRule(name="some", every=100, inputs=True), inputs=ALL)
    bench.see(1)
    assert bench.capturer._ring.used_bytes == 0


def test_what_a_shadow_disagrees_with_is_captured_with_its_inputs(bench: Bench) -> None:
    bench.follow(CaptureRule(name="odd", when="disagrees", inputs=True), inputs=ALL)
    bench.see(1)
    bench.see(2, disagrees=False)
    bench.see(3, disagrees=True)
    (sample,) = bench.samples()
    assert (sample.model_version, list(sample.inputs)) == ("3", ["x"])


def test_what_a_shadow_answered_counts_for_no_other_rule(bench: Bench) -> None:
    bench.follow(CaptureRule(name="some", every=2))
    for number in range(4):
        bench.see(number)
        bench.see(number, disagrees=True)
    assert bench.taken() == [0, 2]


def test_requests_with_features_that_moved_are_captured(bench: Bench) -> None:
    bench.follow(CaptureRule(name="moved", when="size(drifted) > 0"))
    bench.see(1)
    bench.see(2, drifted=("x[0]",))
    assert bench.taken() == [2]


def test_a_rule_that_stays_as_it_was_goes_on_counting(bench: Bench) -> None:
    rule = CaptureRule(name="some", per_hour=1)
    bench.follow(rule)
    bench.see(1)
    bench.follow(rule, CaptureRule(name="other", every=100))
    bench.see(2)
    assert bench.taken() == [1, 2]
    assert [sample.reason for sample in bench.samples()] == ["some", "other"]


def test_what_finds_no_room_is_counted_and_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_bytes=10)
    bench.follow(CaptureRule(name="all", inputs=True), inputs=ALL)
    for number in range(3):
        bench.see(number, x=SECRET)
    bench.capturer.turn(bench.clock.now, START)
    bench.see(3)
    bench.capturer.turn(bench.clock.now + TELL_S / 2, START)
    (told,) = bench.told
    assert isinstance(told, HealthEvent)
    assert told.message == "3 samples found no room"
    assert bench.samples() == []
    bench.capturer.close()
