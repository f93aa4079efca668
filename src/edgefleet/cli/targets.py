"""``edgefleet targets``: kinds of hardware that models can be made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgefleet.cli.options import common, json_option, profile
from edgefleet.cli.output import print_json, print_table

if TYPE_CHECKING:
    from edgefleet.protocol.hardware_target import HardwareTarget

COLUMNS = ("target", "arch", "memory", "precisions", "formats", "engine", "status")


@click.command()
@click.argument("name", required=False)
@json_option
@common
def targets(*, name: str | None, as_json: bool) -> None:
    """List hardware targets, or show one of them.

    Built-in ones and those that the profile's plugins add. A device names its own by the label
    ``target``; ``edgefleet optimize`` makes variants for them. NAME shows why a target's status is
    what it is, and the pages that its figures come from.
    """
    from edgefleet.plugins import discovery
    from edgefleet.profile import load_profile
    from edgefleet.protocol.documents import to_builtins
    from edgefleet.protocol.target import find_target

    found = discovery.hardware_targets(load_profile(profile()).listeners())
    if name is not None:
        target = find_target(name, found)
        if as_json:
            print_json(to_builtins(target))
            return
        click.echo(target.name)
        for title, value in details(target):
            click.echo(f"  {title:<12} {value}")
        return
    if as_json:
        print_json({"targets": [to_builtins(target) for target in found]})
        return
    print_table(COLUMNS, [row(target) for target in found])


def row(target: HardwareTarget) -> tuple[str, ...]:
    """A target as a line of the list, in the order of `COLUMNS`."""
    return (
        target.name,
        target.arch,
        memory(target),
        " ".join(target.precisions),
        " ".join(target.formats),
        target.engine_source or "-",
        target.status,
    )


def details(target: HardwareTarget) -> list[tuple[str, str]]:
    """Everything that is known of a target: titles and values, what is empty left out."""
    ceiling = target.opset_ceiling
    facts = [
        ("about", target.about),
        ("status", target.status),
        ("why", target.why),
        ("arch", target.arch),
        ("kin", ", ".join(target.kin)),
        ("memory", memory(target)),
        ("precisions", ", ".join(target.precisions)),
        ("activations", f"{target.activations} (of int8 models)"),
        ("formats", ", ".join(target.formats)),
        ("opset", "not known" if ceiling is None else f"{ceiling} or lower"),
        ("providers", ", ".join(target.providers)),
        ("engine", target.engine_source),
        ("system", target.os_image),
        ("Python", target.python),
    ]
    facts += [("source", page) for page in (target.source, *target.sources)]
    return [(title, value) for title, value in facts if value]


def memory(target: HardwareTarget) -> str:
    """Memory of the boards of that name: ``2 to 4 GiB``; ``-`` where it varies."""
    if target.memory_bytes is None:
        return "-"
    smallest = target.memory_bytes / (1 << 30)
    largest = (target.max_memory_bytes or target.memory_bytes) / (1 << 30)
    return f"{smallest:g} GiB" if smallest == largest else f"{smallest:g} to {largest:g} GiB"
