"""A list of devices to enrol, as CSV, and what became of each line."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import EdgeFleetError, InvalidInputError
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_BYTES = 64 << 20
_NAME, _GROUP = "name", "group"


class Line(NamedTuple):
    """A device of a list.

    Attributes:
        number: of its line in the file.
        name: of the device.
        group: as the command line takes it.
        labels: from the columns of other names.
        wrong: why it can't be enrolled; empty where it can.
    """

    number: int
    name: str
    group: str
    labels: dict[str, str]
    wrong: str = ""


class Outcome(NamedTuple):
    """What became of a line.

    Attributes:
        line: its number.
        name: of the device.
        group: of it.
        outcome: ``invited``; ``enrolled``, where no command is needed on the device; ``joined``,
            when a machine is that device already; ``failed``.
        ends: when the invitation ends, ISO 8601.
        token: of the invitation.
        command: to paste on the device.
        reason: why it failed, and the cure.
    """

    line: int
    name: str
    group: str
    outcome: str
    ends: str = ""
    token: str = ""
    command: str = ""
    reason: str = ""

    def __repr__(self) -> str:
        """Without what is secret."""
        return f"<line {self.line}: {self.name} of {self.group} {self.outcome} {self.reason}>"

    def facts(self) -> dict[str, Any]:
        """As JSON has it: what isn't there is left out."""
        return {key: value for key, value in self._asdict().items() if value != ""}


def read_list(path: Path, group: str | None) -> list[Line]:
    """The devices of a list; what is wrong with a line is said there, and stops no other.

    Args:
        path: a CSV file whose first line names the columns: ``name``, ``group``, and labels.
        group: of devices whose line names none.

    Raises:
        InvalidInputError: the file is no such list.
    """
    cure = "the first line names the columns, such as: name,group,site"
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InvalidInputError(f"{path} is over {MAX_BYTES} bytes", cure="split it")
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = [one.strip() for one in next(reader, [])]
        if _NAME not in columns:
            raise InvalidInputError(f"{path} has no column called name", cure=cure)
        if len(set(columns)) < len(columns) or "" in columns:
            raise InvalidInputError(f"{path} has a column twice, or one without a name", cure=cure)
        found: list[Line] = []
        names: set[str] = set()
        for cells in reader:
            if any(cell.strip() for cell in cells):
                line = _line(reader.line_num, columns, cells, group, names)
                names.add(line.name)
                found.append(line)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path} is no CSV in UTF-8: {error}", cure=cure) from error
    return found


def _line(
    number: int, columns: list[str], cells: list[str], group: str | None, names: set[str]
) -> Line:
    values = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
    name, into = values.pop(_NAME, ""), values.pop(_GROUP, "") or (group or "")
    labels = {key: value for key, value in values.items() if value}
    return Line(number, name, into, labels, _wrong(columns, cells, name, into, names))


def _wrong(columns: list[str], cells: list[str], name: str, group: str, names: set[str]) -> str:
    if len(cells) != len(columns):
        return f"it has {len(cells)} cells, the first line {len(columns)}"
    if not name:
        return "it names no device"
    if name in names:
        return f"{name} is in the list twice"
    if not group:
        return "it names no group; give --group for all that don't"
    try:
        check_name("device", name)
        check_name("group", group.rpartition("/")[2])
    except EdgeFleetError as error:
        return _on_one_line(error)
    return ""


def failed(line: Line, why: EdgeFleetError | str) -> Outcome:
    """A line that made no device."""
    reason = why if isinstance(why, str) else _on_one_line(why)
    return Outcome(line.number, line.name, line.group, "failed", reason=reason)


def as_csv(outcomes: Iterable[Outcome]) -> str:
    """Outcomes as CSV, with a line that names the columns."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Outcome._fields)
    writer.writerows(outcomes)
    return text.getvalue()


def _on_one_line(error: EdgeFleetError) -> str:
    return error.message if error.cure is None else f"{error.message}; {error.cure}"
