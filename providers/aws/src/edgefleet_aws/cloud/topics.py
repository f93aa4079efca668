"""MQTT topics: which filters match, and which ones IoT Core takes."""

from __future__ import annotations

MAX_SLASHES = 7  # https://docs.aws.amazon.com/general/latest/gr/iot-core.html, message broker


def matches(topic: str, topic_filter: str) -> bool:
    """Whether a filter with ``+`` and ``#`` takes in a topic (MQTT 5, section 4.7)."""
    parts = topic_filter.split("/")
    levels = topic.split("/")
    for index, part in enumerate(parts):
        if part == "#":
            return True
        if index >= len(levels) or part not in {"+", levels[index]}:
            return False
    return len(parts) == len(levels)


def too_deep(topic: str) -> bool:
    """Whether IoT Core refuses a topic for its slashes; those of reserved ones count less."""
    if topic.startswith("$aws/rules/"):  # basic ingest: the first three levels don't count
        topic = topic.split("/", 3)[-1]
    return topic.count("/") > MAX_SLASHES
