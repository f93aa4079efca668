"""The page of hardware targets as Markdown, written from their table.

``python -m edgefleet.cli.targets_page > docs/reference/targets.md``; a test holds that file against
it.
"""

from __future__ import annotations

import sys

from edgefleet.cli.targets import COLUMNS, details, row
from edgefleet.protocol.hardware import BUILTIN

_HEAD = """\
# Hardware targets

<!-- Made by `python -m edgefleet.cli.targets_page`; don't edit. -->

A target is a kind of hardware as data. `edgefleet optimize --target NAME` makes variants for it,
a device names its own by the label `target`, and the same table decides on both sides. `edgefleet
targets` lists the targets that are known where it runs, with those of the profile's plugins;
`edgefleet targets NAME` shows one.

## What the table decides

| | `optimize` | `model push` | `plan`, `deploy` |
|---|---|---|---|
| status `impossible` | refused | refused | problem |
| opset above the target's ceiling | no variant | refused | not chosen |
| a format that its engines don't open | no variant | refused | not chosen |
| a precision that it doesn't list | no variant | refused | not chosen |
| files larger than the memory of the largest board | | refused | problem |
| files of more than half of the memory of the smallest | | warning | warning |
| a target unknown here | refused | warning | warning |
| status `built` or `untested` | | note | note |

A push is checked for the targets that each variant was made for, a plan for the targets of the
group's devices.

**Status.** `tested`: EdgeFleet's tests run on it. `built`: its engine was run, on other hardware
or against a stand-in. `untested`: neither. `impossible`: nothing can serve it, and *why* says
what stands against it.

**Kin.** A variant that was made for a target's kin suits the target too, after what was made for
itself: a Jetson Orin Nano takes what was made for `jetson-orin`. It isn't so the other way round.
A device finds out which board it is; of an x86 CPU it says `x86-cpu`, unless its label says more.

**A target of your own** comes from a plugin (the hook `edgefleet_hardware_targets` gives a list)
or is given to `optimize` as a `HardwareTarget`. A device whose label names a target that its
runtime doesn't know takes what was made for that name, if an engine there opens it.

## The targets

"""


def render() -> str:
    """The whole page."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for target in BUILTIN:
        name, *rest = row(target)
        lines.append(f"| [{name}](#{name}) | {' | '.join(rest)} |")
    parts = [_HEAD + "\n".join(lines) + "\n"]
    for target in BUILTIN:
        facts = "".join(f"| {title} | {_linked(value)} |\n" for title, value in details(target))
        parts.append(f"### {target.name}\n\n| | |\n|---|---|\n{facts}")
    return "\n".join(parts)


def _linked(value: str) -> str:
    return f"<{value}>" if value.startswith("https://") else value


if __name__ == "__main__":
    sys.stdout.write(render())
