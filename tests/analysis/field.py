"""A field of devices, played by files as devices write them, in a local fleet's folder."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.event import OutputSummary, Sample, SketchWindow, new_event
from edgefleet.protocol.segment import SegmentName, write_segment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.protocol.event import Event

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
BUNDLE = digest_of(b"bundle")


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def picture(seed: int, side: int = 8) -> NDArray[np.float32]:
    """A request's input: one square picture."""
    return np.random.default_rng(seed).random((1, side, side), dtype=np.float32)


def _answer(top: int, score: float) -> OutputSummary:
    return OutputSummary(name="y", shape=(1, 10), top=(top,), score=(score,))


def _event(
    device: str,
    second: int,
    inputs: dict[str, str],
    *,
    outputs: dict[str, str] | None = None,
    answers: tuple[OutputSummary, ...] = (),
    version: str = "1",
    bundle: str = BUNDLE,
) -> Event:
    sample = Sample(
        model="digits",
        model_version=version,
        reason="unsure",
        inputs=inputs,
        outputs=outputs or {},
        bundle=bundle,
        answers=answers,
    )
    at = NOON + timedelta(seconds=second)
    return new_event(sample, time=at, identity=f"{device}-{second}")


class Field:
    """What devices have written below a local fleet's home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._segments = 0

    def file(self, device: str, data: bytes, *, digest: str | None = None) -> Path:
        path = (
            self.home
            / "devices"
            / device
            / "samples"
            / "sha256"
            / hex_of(digest or digest_of(data))
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def segment(self, device: str, events: Sequence[Event], *, model: str = "digits") -> Path:
        self._segments += 1
        name = SegmentName(day=NOON.date(), device=device, model=model, id=f"{self._segments:04d}")
        path = self.home / name.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            write_segment(events, stream)
        return path

    def capture(
        self,
        device: str,
        second: int,
        *,
        seed: int | None = None,
        top: int = 3,
        score: float | None = 0.9,
        version: str = "1",
        bundle: str = BUNDLE,
        files: bool = True,
        outputs: bool = False,
        side: int = 8,
    ) -> Event:
        """A sample's event, its files delivered; the caller puts it in a segment."""
        data = npy(picture(second if seed is None else seed, side))
        if files:
            self.file(device, data)
        scores = np.full((1, 10), 0.01, dtype=np.float32)
        scores[0, top] = 0.9 if score is None else score
        answer = npy(scores)
        if outputs:
            self.file(device, answer)
        told = () if outputs or score is None else (_answer(top, score),)
        return _event(
            device,
            second,
            {"x": digest_of(data)},
            outputs={"y": digest_of(answer)} if outputs else {},
            answers=told,
            version=version,
            bundle=bundle,
        )

    def captured(self, device: str, second: int, array: NDArray[Any]) -> Event:
        """As `capture`, of an input that the caller gives."""
        data = npy(array)
        self.file(device, data)
        return _event(device, second, {"x": digest_of(data)}, answers=(_answer(3, 0.9),))

    def window(self, device: str, start: int, end: int, verdict: str) -> Event:
        data = SketchWindow(
            model="digits",
            model_version="1",
            start=NOON + timedelta(seconds=start),
            end=NOON + timedelta(seconds=end),
            features={},
            verdict=verdict,  # type: ignore[arg-type]
        )
        return new_event(data, time=data.end)
