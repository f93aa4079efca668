"""``edgefleet device enroll`` and ``revoke``: one device, or a list of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.cli.errors import FAILURE
from edgefleet.cli.options import common, json_option, label_option, open_fleet, span, yes_option
from edgefleet.cli.output import may_go_on, print_json, say, when
from edgefleet.errors import AlreadyExistsError, EdgeFleetError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from edgefleet.cli.device_list import Line, Outcome
    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.inviting import Invitation

WORKERS = 8  # devices at a time
TOLD = 20  # failures that are listed


def _lasting(_ctx: click.Context, _option: click.Parameter, text: str | None) -> timedelta | None:
    """A click callback: a length of time."""
    if text is None:
        return None
    try:
        found = span(text)
    except OverflowError:
        found = None
    if found is None:
        msg = f"{text!r} is no length of time; write 30m, 1h or 2d"
        raise click.BadParameter(msg)
    return found


@click.command()
@click.argument("name", required=False)
@click.option("--group", metavar="G", help="Its group; made if there is none yet.")
@label_option("Such as target=raspberry-pi-5; any number of times.")
@click.option(
    "--replace",
    is_flag=True,
    help="Let this machine take the place of one that has that name: what that one was given is "
    "revoked when this one comes.",
)
@click.option(
    "--expires",
    "lasts",
    metavar="TIME",
    callback=_lasting,
    help="How long the printed command may be used, such as 30m or 2d; an hour without it.",
)
@click.option(
    "--from",
    "source",
    metavar="FILE.csv",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Enrol every device of a list instead. Its first line names the columns: name, group, "
    "and any labels.",
)
@json_option
@common
def enroll(
    *,
    name: str | None,
    group: str | None,
    labels: tuple[tuple[str, str], ...],
    replace: bool,
    lasts: timedelta | None,
    source: Path | None,
    as_json: bool,
) -> None:
    """Add a device to a group.

    Where devices join by themselves, it prints a command to paste on the machine, once; nothing
    else makes that machine the device. Elsewhere the provider adds it from here, where it can do
    that. The same again changes nothing, or prints a command in place of the one before.

    With --from the outcomes are printed as CSV, commands among them: send them to a file that only
    you can read. Run it again after mending what failed: who has joined is left alone.
    """
    if (name is None) == (source is None):
        raise click.UsageError("give a NAME, or a list of devices with --from")
    if source is None and group is None:
        raise click.UsageError("give the device's group with --group G")
    with open_fleet() as fleet:
        enrolling = _Enrolling(fleet, dict(labels), replace=replace, lasts=lasts)
        if source is not None:
            _enroll_list(enrolling, source, group, as_json=as_json)
        else:
            assert name is not None  # noqa: S101 - checked above
            assert group is not None  # noqa: S101 - likewise
            _enroll_one(enrolling, name, group, as_json=as_json)


class _Enrolling:
    """How devices are enrolled: what the options say."""

    def __init__(
        self, fleet: Fleet, labels: Mapping[str, str], *, replace: bool, lasts: timedelta | None
    ) -> None:
        self.fleet, self.labels = fleet, labels
        self._replace, self._lasts = replace, lasts

    def by_invitation(self, group: str) -> bool:
        """Whether a device of this group is invited; asked for where none can be, it is refused."""
        asked = self._replace or self._lasts is not None
        return asked or self.fleet.can_invite(group)

    def invite(self, name: str, group: str, labels: Mapping[str, str]) -> Invitation:
        """Invite a device."""
        from edgefleet.interfaces.inviting import LASTS

        return self.fleet.invite(
            name, group=group, labels=labels, lasts=self._lasts or LASTS, replace=self._replace
        )


def _enroll_one(enrolling: _Enrolling, name: str, group: str, *, as_json: bool) -> None:
    if not enrolling.by_invitation(group):
        found = enrolling.fleet.enroll(name, group=group, labels=enrolling.labels)
        if as_json:
            print_json(found.facts())
        else:
            click.echo(f"{found.name} is in group {found.group}")
        return
    invited = enrolling.invite(name, group, enrolling.labels)
    if as_json:
        print_json(invited.facts())
        return
    say(f"Paste this on the machine that is to be {name}, before {when(invited.ends)} UTC.")
    say("It works once; show it to nobody else.\n")
    click.echo(invited.command)


def _enroll_list(enrolling: _Enrolling, source: Path, group: str | None, *, as_json: bool) -> None:
    from edgefleet.cli.device_list import as_csv, read_list

    lines = read_list(source, group)
    # Built before threads share them.
    _ = enrolling.fleet.deployers, enrolling.fleet.state
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="edgefleet-enrol") as pool:
        outcomes = list(pool.map(partial(_outcome, enrolling), lines))
    lost = [one for one in outcomes if one.outcome == "failed"]
    if as_json:
        print_json({"devices": [one.facts() for one in outcomes], "failed": len(lost)})
    else:
        click.echo(as_csv(outcomes), nl=False)
    counts = {
        word: sum(one.outcome == word for one in outcomes)
        for word in ("invited", "enrolled", "joined", "failed")
    }
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    say(told or "the list names no device")
    for one in lost[:TOLD]:
        say(f"  line {one.line}: {one.name or '?'}: {one.reason}")
    if len(lost) > TOLD:
        say(f"  and {len(lost) - TOLD} more")
    if lost:
        click.get_current_context().exit(FAILURE)


def _outcome(enrolling: _Enrolling, line: Line) -> Outcome:
    from edgefleet.cli.device_list import Outcome, failed

    if line.wrong:
        return failed(line, line.wrong)
    labels = {**enrolling.labels, **line.labels}
    made = partial(Outcome, line.number, line.name, line.group)
    try:
        if not enrolling.by_invitation(line.group):
            enrolling.fleet.enroll(line.name, group=line.group, labels=labels)
            return made("enrolled")
        invited = enrolling.invite(line.name, line.group, labels)
    except AlreadyExistsError:
        return made("joined")
    except EdgeFleetError as error:
        return failed(line, error)
    return made("invited", invited.ends.isoformat(), invited.token, invited.command)


@click.command()
@click.argument("name")
@yes_option
@json_option
@common
def revoke(*, name: str, yes: bool, as_json: bool) -> None:
    """Have a device sync no more, at once: for one that was stolen or lost.

    It goes on serving what it has. It stays in its group; `edgefleet device enroll NAME --replace`
    lets it, or another machine, come back. The same again changes nothing.
    """
    with open_fleet() as fleet:
        found = fleet.device(name)
        may_go_on(f"Have {name} sync no more?", yes=yes)
        fleet.revoke(name)
    if as_json:
        print_json({"revoked": name, "group": found.info.group})
    else:
        click.echo(f"{name} syncs no more")
