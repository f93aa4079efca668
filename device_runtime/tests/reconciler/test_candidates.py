"""Which variant serves, and which is tried next: values in, values out."""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet.protocol import bundle as b
from edgefleet.protocol.target import Choice
from edgefleet_runtime.reconciler.candidates import describe, ranked, untried
from edgefleet_runtime.reconciler.timings import MAX_TRIES, Record


def digest(name: str) -> str:
    return "sha256:" + name.encode().hex().rjust(64, "0")


def choice(name: str, size: int = 100) -> Choice:
    manifest = b.Descriptor(media_type=b.MANIFEST_MEDIA_TYPE, digest=digest(name), size=10)
    variant = b.Variant(
        name=name,
        format="onnx",
        precision="fp32",
        targets=(),
        bytes=size,
        opset=None,
        manifest=manifest,
    )
    return Choice(variant=variant, why="by the rules")


class Known:
    """What is known of variants, by name."""

    def __init__(self, **records: dict[str, Any]) -> None:
        self._records = {
            digest(name): Record(variant=digest(name), machine="m", **facts)
            for name, facts in records.items()
        }

    def __call__(self, choice: Choice) -> Record:
        key = choice.variant.manifest.digest
        return self._records.get(key, Record(variant=key, machine="m"))


RULES = (choice("a"), choice("b"), choice("c"))


def names(choices: tuple[Choice, ...]) -> str:
    return "".join(choice.variant.name for choice in choices)


@pytest.mark.parametrize(
    "known, order",
    [
        ({}, "abc"),
        ({"a": {"p50_us": 100}, "b": {"p50_us": 50}}, "bac"),
        ({"a": {"p50_us": 100}, "b": {"p50_us": 60}, "c": {"p50_us": 50}}, "cab"),
        ({"a": {"p50_us": 100}, "b": {"p50_us": 95}}, "abc"),
        ({"b": {"p50_us": 1}}, "abc"),
        ({"a": {"p50_us": 100}, "b": {"p50_us": 50, "tries": 1}}, "abc"),
        ({"a": {"p50_us": 100}, "b": {"p50_us": 50, "failed": "why"}}, "abc"),
        ({"a": {"failed": "why"}, "b": {}}, "bac"),
        ({"a": {"failed": "1"}, "b": {"failed": "2"}, "c": {"tries": MAX_TRIES}}, "abc"),
    ],
    ids=[
        "rules alone",
        "a faster one",
        "the fastest of two",
        "hardly faster",
        "nothing to compare with",
        "one on trial",
        "one that failed",
        "the rules' first failed",
        "all failed",
    ],
)
def test_rules_choose_and_figures_move_a_clearly_faster_variant_ahead(
    known: dict[str, dict[str, Any]], order: str
) -> None:
    assert names(ranked(RULES, Known(**known))) == order


def test_the_reason_tells_the_figures() -> None:
    known = Known(a={"p50_us": 100.4}, b={"p50_us": 50.2})
    assert ranked(RULES, known)[0].why == "faster here than a: 50 against 100 µs"


def tried(max_bytes: int, **known: dict[str, Any]) -> tuple[str, int] | None:
    found = untried(
        RULES, Known(**known), cost_of=lambda choice: choice.variant.bytes, max_bytes=max_bytes
    )
    return found and (found[0].variant.name, found[1])


def test_no_bytes_no_trial() -> None:
    assert tried(99) is None


def test_the_next_by_the_rules_is_tried_first() -> None:
    assert tried(100) == ("b", 100)


def test_bytes_spent_on_one_trial_are_not_there_for_the_next() -> None:
    assert tried(199, b={"p50_us": 100, "spent_bytes": 100}) is None
    assert tried(200, b={"p50_us": 100, "spent_bytes": 100}) == ("c", 100)


def test_what_a_crash_cut_short_may_use_what_it_was_charged() -> None:
    assert tried(100, b={"tries": 1, "spent_bytes": 100}) == ("b", 100)


def test_what_failed_is_not_tried_again() -> None:
    assert tried(100, b={"failed": "why"}) == ("c", 100)
    assert tried(100, b={"tries": MAX_TRIES}) == ("c", 100)


def test_a_report_says_what_is_known_of_each() -> None:
    known = Known(a={"p50_us": 1.26, "p95_us": 2.0}, b={"p50_us": 3.0}, c={"failed": "why"})
    told = describe((*RULES, choice("d", 500)), known, max_bytes=100)
    assert [(v.variant, v.state, v.p50_us, v.reason) for v in told] == [
        ("a", "chosen", 1.3, None),
        ("b", "measured", 3.0, None),
        ("c", "failed", None, "why"),
        ("d", "untried", None, "500 bytes, trials may fetch 100"),
    ]


def test_where_there_is_no_choice_a_report_says_nothing() -> None:
    assert describe(RULES[:1], Known(), max_bytes=100) == ()
