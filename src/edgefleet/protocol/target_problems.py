"""What stands against a variant on a target, by the targets' data: pure, and asked before a device.

`optimize`, `push` and `plan` ask here, so that what can't work is refused where somebody can still
mend it. Rules kept here:

- Refused is what can never work: a target that nothing can serve, a format that its engines don't
  open, a precision that it doesn't list, an opset above its ceiling, more bytes than its largest
  board has memory.
- Warned of is what may fail: a target unknown here, files of more than half of the smallest board's
  memory.
- Noted is that EdgeFleet was never run on the target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.target import BUILTIN, HardwareTarget, mismatches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgefleet.protocol.bundle import Variant

Level = Literal["refuse", "warn", "note"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that stands against a variant on a target.

    Attributes:
        level: ``refuse`` for what can't work, ``warn`` for what may fail, ``note`` for what a
            person may want to know.
        text: what, naming target and variant.
        cure: what to do about it; empty for a note.
    """

    level: Level
    text: str
    cure: str = ""

    def __str__(self) -> str:
        return self.text


def status_problems(target: HardwareTarget) -> tuple[Problem, ...]:
    """What a target's status says against it: one problem, or none when it was tested."""
    match target.status:
        case "tested":
            return ()
        case "impossible":
            about = f": {target.why}" if target.why else ""
            text = f"nothing can serve target {target.name}{about}"
            return (Problem(level="refuse", text=text, cure="leave that target out"),)
        case status:
            return (Problem(level="note", text=f"target {target.name} is {status}"),)


def target_problems(variant: Variant, target: HardwareTarget) -> tuple[Problem, ...]:
    """Everything that stands against running a variant on a target, the worst first."""
    what = f"variant {variant.name} on target {target.name}"
    found = [*status_problems(target)]
    found += [
        Problem(level="refuse", text=f"{what}: {mismatch.reason}", cure=mismatch.cure)
        for mismatch in mismatches(variant, target)
    ]
    found += _memory_problems(variant, target, what)
    return tuple(sorted(found, key=lambda problem: ("refuse", "warn", "note").index(problem.level)))


def variant_problems(
    variant: Variant, targets: Iterable[HardwareTarget] = BUILTIN
) -> tuple[Problem, ...]:
    """What stands against a variant on the targets that it was made for.

    Args:
        variant: one that was made for none in particular has no problem here.
        targets: those known.
    """
    known = {target.name: target for target in targets}
    found: list[Problem] = []
    for name in variant.targets:
        if name in known:
            found += target_problems(variant, known[name])
        else:
            text = f"variant {variant.name} is made for target {name}, which is unknown here"
            cure = "check the name with: edgefleet targets; or add the target by a plugin"
            found.append(Problem(level="warn", text=text, cure=cure))
    return tuple(found)


def check_variants(
    variants: Iterable[Variant], targets: Iterable[HardwareTarget] = BUILTIN
) -> tuple[Problem, ...]:
    """Warnings and notes on variants for the targets that they were made for, each once.

    Raises:
        InvalidInputError: one can never run on a target that it was made for.
    """
    known = tuple(targets)
    return _passed(problem for variant in variants for problem in variant_problems(variant, known))


def check_targets(targets: Iterable[HardwareTarget]) -> tuple[Problem, ...]:
    """Notes on targets that something is to be made for.

    Raises:
        InvalidInputError: nothing can serve one of them.
    """
    return _passed(problem for target in targets for problem in status_problems(target))


def _passed(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    found = tuple(dict.fromkeys(problems))
    refused = [problem for problem in found if problem.level == "refuse"]
    if refused:
        raise InvalidInputError("; ".join(map(str, refused)), cure=refused[0].cure)
    return found


def _memory_problems(variant: Variant, target: HardwareTarget, what: str) -> Iterator[Problem]:
    smallest = target.memory_bytes
    if smallest is None:
        return
    largest = max(smallest, target.max_memory_bytes or 0)
    size = f"{what}: its files take {_gib(variant.bytes)}"
    cure = "make it smaller (int8, float16, pruning), or choose larger hardware"
    if variant.bytes > largest:
        text = f"{size}, and no board has more than {_gib(largest)} of memory"
        yield Problem(level="refuse", text=text, cure=cure)
    elif variant.bytes * 2 > smallest:
        text = f"{size}, more than half of the {_gib(smallest)} that the smallest board has"
        yield Problem(level="warn", text=text, cure=cure)


def _gib(amount: int) -> str:
    return f"{amount / (1 << 30):.3g} GiB"
