"""``edgefleet targets``: kinds of hardware that models can be made for."""

from __future__ import annotations

import click

from edgefleet.cli.options import common, json_option, profile
from edgefleet.cli.output import print_json, print_table


@click.command()
@json_option
@common
def targets(*, as_json: bool) -> None:
    """List the hardware targets known here.

    Built-in ones and those that the profile's plugins add. A device names its own by the label
    ``target``; ``edgefleet optimize`` makes variants for them.
    """
    from edgefleet.plugins import discovery
    from edgefleet.profile import load_profile
    from edgefleet.protocol.documents import to_builtins

    found = discovery.hardware_targets(load_profile(profile()).listeners())
    if as_json:
        print_json({"targets": [to_builtins(target) for target in found]})
        return
    print_table(
        ("target", "arch", "precisions", "execution providers", "status", "about"),
        [
            (
                target.name,
                target.arch,
                " ".join(target.precisions),
                " ".join(p.removesuffix("ExecutionProvider") for p in target.providers),
                target.status,
                target.about,
            )
            for target in found
        ],
    )
