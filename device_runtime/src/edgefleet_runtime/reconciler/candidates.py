"""Which variant of a bundle a device should run, and which to try next: pure functions.

Target rules come first (`edgefleet.protocol.target.rank_variants`): what they leave out is never
run, and what they like best serves first. Figures measured on this machine then move a variant
ahead that is clearly faster. Every variant of a bundle passed the accuracy gate where it was made,
so that among them speed decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgefleet.protocol.report import FASTER, VariantReport
from edgefleet_runtime.reconciler.timings import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgefleet.protocol.target import Choice

    RecordOf = Callable[[Choice], Record]

WORTH = 1.1  # times as fast, for a variant to go before one that the target's rules like better
MAX_REPORTED = 8


def ranked(choices: Sequence[Choice], record_of: RecordOf) -> tuple[Choice, ...]:
    """Variants by target rules and figures, the one to run first, in the rules' order otherwise.

    Args:
        choices: what the target's rules allow, the best first; at least one.
        record_of: what is known of each on this machine.
    """
    sound = [choice for choice in choices if record_of(choice).hopeless is None]
    first = sound[0] if sound else choices[0]
    known = record_of(first)
    best, best_us = first, known.p50_us if known.trusted else None
    for choice in sound:
        record = record_of(choice)
        if record.trusted and best_us is not None and clearly_faster(record.p50_us, best_us):
            best, best_us = choice, record.p50_us
    if best is not first:
        best = replace(best, why=why_faster(first.variant.name, best_us, known.p50_us))
    rest = [choice for choice in choices if choice.variant.name != best.variant.name]
    return (best, *rest)


def clearly_faster(new_us: float | None, old_us: float | None) -> bool:
    """Whether one median beats another by enough to change what serves."""
    return new_us is not None and old_us is not None and new_us * WORTH < old_us


def why_faster(name: str, new_us: float | None, old_us: float | None) -> str:
    """In a phrase, why a variant was chosen before the one of that name."""
    return f"{FASTER} {name}: {new_us or 0:.0f} against {old_us or 0:.0f} µs"


def untried(
    candidates: Iterable[Choice],
    record_of: RecordOf,
    *,
    cost_of: Callable[[Choice], int],
    max_bytes: int,
) -> tuple[Choice, int] | None:
    """The next variant to time beside the one that serves, and the bytes that it may fetch.

    None when none is left or allowed. A try that a crash ended was charged already: what is left of
    it may come.

    Args:
        candidates: in order, the one that serves first.
        record_of: what is known of each on this machine.
        cost_of: bytes to fetch of each.
        max_bytes: bytes that trials of these candidates may fetch altogether.
    """
    known = tuple(candidates)
    left = max(0, max_bytes - sum(record_of(choice).spent_bytes for choice in known))
    for choice in known[1:]:
        record = record_of(choice)
        if record.trusted or record.hopeless is not None:
            continue
        allowed = left + (record.spent_bytes if record.tries else 0)
        if cost_of(choice) <= allowed:
            return choice, allowed
    return None


def describe(
    candidates: Sequence[Choice], record_of: RecordOf, *, max_bytes: int
) -> tuple[VariantReport, ...]:
    """What a report says of the variants; nothing where there is no choice.

    Args:
        candidates: in order, the one that serves first.
        record_of: what is known of each on this machine.
        max_bytes: bytes that trials may fetch.
    """
    if len(candidates) == 1:
        return ()
    return tuple(
        _described(choice, record_of(choice), chosen=place == 0, max_bytes=max_bytes)
        for place, choice in enumerate(candidates[:MAX_REPORTED])
    )


def _described(choice: Choice, record: Record, *, chosen: bool, max_bytes: int) -> VariantReport:
    report = VariantReport(
        variant=choice.variant.name,
        p50_us=record.p50_us and round(record.p50_us, 1),
        p95_us=record.p95_us and round(record.p95_us, 1),
        memory_bytes=record.memory_bytes,
    )
    if chosen:
        return replace(report, state="chosen")
    if record.hopeless is not None:
        return replace(report, state="failed", reason=record.hopeless)
    if record.trusted:
        return replace(report, state="measured")
    size = choice.variant.bytes
    reason = f"{size} bytes, trials may fetch {max_bytes}" if size > max_bytes else None
    return replace(report, reason=reason)
