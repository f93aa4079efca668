"""What a query says of the segments it read."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

import pytest

from edgefleet.errors import NotFoundError
from edgefleet.interfaces.telemetry import Telemetry
from edgefleet.protocol.segment import SegmentName, write_segment
from edgefleet.testing.kit import samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from edgefleet.protocol.event import Event

THERE, GONE = (
    SegmentName(day=samples.MOMENT.date(), device="a", model="digits", id=name)
    for name in ("there", "gone")
)


class Expiring(Telemetry):
    """Telemetry whose retention takes a segment away between listing and opening it."""

    provider = "memory"

    def __init__(self, refusal: type[Exception]) -> None:
        self._refusal = refusal

    def _segments(self) -> Iterator[SegmentName]:
        return iter((THERE, GONE))

    def _open_file(self, device: str, path: str) -> BinaryIO:
        if path == GONE.below_device:
            raise self._refusal("gone")
        stream = io.BytesIO()
        write_segment([samples.prediction(0)], stream)
        stream.seek(0)
        return stream

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        return iter(())


@pytest.mark.parametrize("refusal", [FileNotFoundError, NotFoundError])
def test_a_segment_that_is_gone_is_set_aside(refusal: type[Exception]) -> None:
    query = Expiring(refusal).query(kind="prediction")
    with pytest.warns(RuntimeWarning, match="gone"):
        assert len(list(query)) == 1
    assert list(query.unreadable) == [GONE.path]
    assert list(query.segments) == [THERE.path]
