"""A rollout's policy from the command line."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.policy import RolloutPolicy

F = TypeVar("F", bound="Callable[..., Any]")


class _Pair(click.ParamType[tuple[float, int]]):
    """``NUMBER:DEVICES`` as a pair."""

    def __init__(self, metavar: str) -> None:
        self.name = metavar

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, int]:
        if isinstance(value, tuple):
            return value
        first, _, second = str(value).partition(":")
        try:
            return float(first), int(second)
        except ValueError:
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)


def policy_options(command: F) -> F:
    """``--per-minute`` and its kin, which the command gets as one ``policy``; None for none."""

    @functools.wraps(command)
    def with_policy(
        *args: Any,  # noqa: ANN401 - handed on
        per_minute: int | None,
        faster: tuple[float, int] | None,
        stop_after: tuple[float, int] | None,
        on_failure: str | None,
        device_timeout_s: int | None,
        **rest: Any,  # noqa: ANN401 - handed on
    ) -> object:
        policy = _policy(per_minute, faster, stop_after, on_failure, device_timeout_s)
        return command(*args, policy=policy, **rest)

    made: Any = with_policy
    options = (
        click.option(
            "--per-minute", metavar="N", type=click.IntRange(min=1), help="Devices told a minute."
        ),
        click.option(
            "--faster",
            metavar="FACTOR:DEVICES",
            type=_Pair("FACTOR:DEVICES"),
            help="Multiply that rate each time that so many more devices were told.",
        ),
        click.option(
            "--stop-after",
            metavar="PERCENT:DEVICES",
            type=_Pair("PERCENT:DEVICES"),
            help="Tell no further device once so many of a hundred failed, of at least so many.",
        ),
        click.option(
            "--on-failure",
            type=click.Choice(["keep", "roll-back"]),
            help="What the vendor's agent on a device does with a delivery that fails.",
        ),
        click.option(
            "--device-timeout",
            "device_timeout_s",
            metavar="SECONDS",
            type=click.IntRange(min=1),
            help="A device that has begun and isn't done by then counts as failed.",
        ),
    )
    for option in reversed(options):
        made = option(made)
    found: F = made
    return found


def _policy(
    per_minute: int | None,
    faster: tuple[float, int] | None,
    stop: tuple[float, int] | None,
    on_failure: str | None,
    timeout_s: int | None,
) -> RolloutPolicy | None:
    """The policy that the options make; None where they say nothing.

    Raises:
        BadParameter: they make none.
    """
    from pydantic import ValidationError

    from edgefleet.interfaces.policy import Faster, RolloutPolicy, StopAfter
    from edgefleet.profile import first_problem

    said: dict[str, Any] = {
        "per_minute": per_minute,
        "on_failure": on_failure,
        "timeout_s": timeout_s,
    }
    try:
        if faster is not None:
            said["faster"] = Faster(by=faster[0], after=faster[1])
        if stop is not None:
            said["stop_after"] = StopAfter(failed_percent=stop[0], devices=stop[1])
        return RolloutPolicy.model_validate(said) if any(said.values()) else None
    except ValidationError as error:
        raise click.BadParameter(first_problem(error)) from error
