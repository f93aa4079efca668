"""Waiting for devices to attest a deployment, and printing what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgefleet.cli.options import number_option
from edgefleet.cli.output import print_json, say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet.deployment import Deployment

F = TypeVar("F", bound="Callable[..., Any]")


def waiting_options(command: F) -> F:
    """``--wait/--no-wait``, ``--min-attested`` and ``--timeout``."""
    options = (
        click.option("--wait/--no-wait", default=True, show_default=True, help="For the devices."),
        number_option(
            "--min-attested",
            unit="SHARE",
            within=click.FloatRange(0, 1),
            default=1.0,
            about="Share of the group's devices to wait for.",
        ),
        number_option(
            "--timeout",
            "timeout_s",
            unit="SECONDS",
            within=click.FloatRange(min=0),
            default=600.0,
            about="Give up waiting then; the deployment goes on.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def finish(
    deployment: Deployment,
    *,
    wait: bool,
    min_attested: float,
    timeout_s: float,
    as_json: bool,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Wait if asked to, then print the group's status, whatever it is.

    Raises:
        DeploymentFailedError: so many devices rejected it that the share can't be reached.
        WaitTimeoutError: it took longer.
    """
    say(f"{deployment.action} #{deployment.number} is on its way to {deployment.group}")
    try:
        if wait:
            deployment.wait(min_attested=min_attested, timeout_s=timeout_s)
    finally:
        if as_json:
            print_json({**(facts or {}), "deployment": deployment.facts()})
        else:
            click.echo(str(deployment.status()))
