"""Options that commands share, and the fleet that they open."""

from __future__ import annotations

import json
import re
import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from click.shell_completion import CompletionItem

    from edgefleet.fleet import Fleet

F = TypeVar("F", bound="Callable[..., Any]")

_PROFILE = "edgefleet.profile"
_SPAN = re.compile(r"\A(?P<count>\d+(?:\.\d+)?)(?P<unit>[smhdw])\Z", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_verbose = False  # outlives the click context, which is gone when an error is reported


def is_verbose() -> bool:
    """Whether ``--verbose`` was given."""
    return _verbose


def profile() -> str | None:
    """What ``--profile`` says, before or after the command."""
    name: str | None = click.get_current_context().meta.get(_PROFILE)
    return name


@contextmanager
def open_fleet() -> Iterator[Fleet]:
    """The fleet of the profile asked for, closed afterwards."""
    from edgefleet.fleet import connect

    with connect(profile()) as fleet:
        yield fleet


def _remember_profile(ctx: click.Context, _option: click.Parameter, name: str | None) -> None:
    if name is not None:
        ctx.meta[_PROFILE] = name


def _remember_verbose(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:  # noqa: FBT001 - click's signature
    global _verbose  # noqa: PLW0603 - one command line a process
    if ctx.parent is None:
        _verbose = asked
    _verbose = _verbose or asked
    if asked:
        _log_to_stderr(ctx)


def _log_to_stderr(ctx: click.Context) -> None:
    import logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logger = logging.getLogger("edgefleet")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)

    def undo() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    ctx.find_root().call_on_close(undo)


def _profile_names(
    _ctx: click.Context, _option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from edgefleet.errors import EdgeFleetError
    from edgefleet.profile import profile_names

    try:
        return [CompletionItem(name) for name in profile_names() if name.startswith(incomplete)]
    except EdgeFleetError:
        return []


def help_without_command(ctx: click.Context) -> None:
    """What a group does when no command of it is named."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def common(command: F) -> F:
    """``--profile`` and ``--verbose``, which may stand before or after the command."""
    profile_option = click.option(
        "--profile",
        metavar="NAME",
        expose_value=False,
        is_eager=True,
        callback=_remember_profile,
        shell_complete=_profile_names,
        help="Profile in edgefleet.toml; without it EDGEFLEET_PROFILE or the default one.",
    )
    verbose_option = click.option(
        "--verbose",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_remember_verbose,
        help="Log every step to standard error, and show tracebacks.",
    )
    return profile_option(verbose_option(command))


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the facts as JSON on standard output."
)
cohort_option: Callable[[Any], Any] = click.option(
    "--cohort-permille",
    metavar="N",
    type=click.IntRange(1, 1000),
    help="Give it to so many of a thousand devices of a group first; then: edgefleet promote, or "
    "cancel.",
)
yes_option = click.option("--yes", "-y", is_flag=True, help="Don't ask.")


def pair(text: str) -> tuple[str, str]:
    """``key=value`` as a pair of texts.

    Raises:
        BadParameter: it has another form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        msg = f"{text!r} is not of the form key=value"
        raise click.BadParameter(msg)
    return key, value


def label_option(about: str) -> Callable[[F], F]:
    """``--label key=value``, any number of times."""
    return click.option(
        "--label", "labels", metavar="KEY=VALUE", type=pair, multiple=True, help=about
    )


def number_option(
    *names: str,
    within: click.IntRange | click.FloatRange,
    default: float,
    about: str,
    unit: str = "N",
) -> Callable[[F], F]:
    """A number within bounds, whose default the help shows.

    Args:
        names: the option's, and the argument's where it has another.
        within: what it may be.
        default: where it isn't given.
        about: what it is, in the help.
        unit: stands for the number there.
    """
    return click.option(
        *names, metavar=unit, type=within, default=default, show_default=True, help=about
    )


def span(text: str) -> timedelta | None:
    """A length of time: ``90s``, ``10m``, ``1h``, ``2d``, ``1w``; None for what is none.

    Raises:
        OverflowError: it is too long.
    """
    found = _SPAN.match(text)
    if found is None:
        return None
    return timedelta(**{_UNITS[found["unit"]]: float(found["count"])})


def script_options(whose: str) -> Callable[[F], F]:
    """``--data``, ``--param``, ``--requirement`` and ``--instance`` of a training script.

    Args:
        whose: the script or scripts that they are for, in the help.
    """
    options = (
        click.option("--data", metavar="PATH", help="File or folder with the data, or an address."),
        click.option(
            "--param",
            "params",
            type=pair,
            metavar="KEY=VALUE",
            multiple=True,
            help=f"A parameter of {whose}: epochs=5. JSON scalars are read as such, the rest as "
            "text.",
        ),
        click.option(
            "--requirement", "requirements", multiple=True, help=f"A pip requirement of {whose}."
        ),
        click.option("--instance", help="The provider's name of a machine type."),
    )

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def json_scalars(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Values as JSON where they are JSON scalars, else as texts: ``5``, ``true``, ``adam``."""
    return {key: _scalar(text) for key, text in pairs}


def _scalar(text: str) -> Any:  # noqa: ANN401 - a JSON scalar
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, dict | list) else value
