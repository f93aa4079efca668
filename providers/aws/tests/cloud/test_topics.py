"""MQTT topics as IoT Core takes them."""

from __future__ import annotations

import pytest

from edgefleet_aws.cloud.topics import matches, too_deep


@pytest.mark.parametrize(
    "topic_filter, matching",
    [
        ("a/b", ["a/b"]),
        ("a/+", ["a/b"]),
        ("a/#", ["a", "a/b", "a/b/c"]),
        ("+/b", ["a/b"]),
        ("#", ["a", "a/b", "a/b/c"]),
        ("a", ["a"]),
    ],
)
def test_filters_match_level_by_level(topic_filter: str, matching: list[str]) -> None:
    assert [one for one in ("a", "a/b", "a/b/c") if matches(one, topic_filter)] == matching


def test_a_topic_has_seven_slashes_at_most() -> None:
    assert not too_deep("/" * 7)
    assert too_deep("/" * 8)


def test_basic_ingest_counts_from_behind_the_rule() -> None:
    assert not too_deep("$aws/rules/name/" + "/" * 7)
    assert too_deep("$aws/rules/name/" + "/" * 8)
