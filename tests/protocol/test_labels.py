"""Labels of devices: what is kept of them, and what a report has room for."""

from __future__ import annotations

import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.labels import check_given, check_labels, check_reported
from edgefleet.testing.kit.samples import UNUSABLE_LABELS


def test_labels_up_to_their_bounds_are_kept() -> None:
    check_labels({})
    check_labels({"k" * 63: "v" * 255, "site": "Ünna 1 = north", "gone": None, "empty": ""})
    check_given({str(number): "x" for number in range(32)})


@pytest.mark.parametrize("labels", UNUSABLE_LABELS)
def test_labels_beyond_their_bounds_are_refused_with_what_is_allowed(
    labels: dict[str, str],
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_labels(labels)
    assert refused.value.cure is not None
    assert "63" in refused.value.cure
    with pytest.raises(InvalidInputError):
        check_given(labels)


def test_a_joining_device_says_no_more_than_is_kept_of_it() -> None:
    with pytest.raises(InvalidInputError, match="33 labels"):
        check_given({str(number): "x" for number in range(33)})


def test_a_label_that_is_taken_away_needs_a_name_too() -> None:
    with pytest.raises(InvalidInputError, match="unusable"):
        check_labels({"": None})


def test_a_report_has_room_for_fewer_and_shorter_labels() -> None:
    check_reported({f"{number:063}": "x" * 63 for number in range(24)})
    for labels in ({"a": "x" * 64}, {"k" * 64: "x"}, {str(n): "x" for n in range(25)}):
        with pytest.raises(InvalidInputError, match="too much"):
            check_reported(labels)
