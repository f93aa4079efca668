"""A release given to many groups at once: what it would change, what came of it. Pure.

Groups are told apart, devices aren't: what is known here costs the same for ten devices as for a
million.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from edgefleet.errors import AmbiguousReferenceError, InvalidInputError, NotFoundError
from edgefleet.interfaces.policy import RolloutPolicy
from edgefleet.interfaces.tables import html_table, text_table
from edgefleet.interfaces.values import Group, Rendered, Value
from edgefleet.protocol.names import check_group
from edgefleet.rollout.plan import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WILD = frozenset("*?[")
SHOWN = 20  # groups in a table for people


class GroupPlan(Value):
    """One group's share of a launch.

    Attributes:
        group: ``deployer/name``.
        before: digest of the release in force; None before the first.
        after: digest of the release planned.
        changes: model by model.
        devices: how many it has; None where counting would cost a call a device.
        unchanged: whether the group has it already.
        documents: all that would be in place.
        problems: what will be refused.
    """

    group: str
    before: str | None
    after: str
    changes: tuple[Change, ...]
    devices: int | None = None
    unchanged: bool = False
    documents: tuple[Rendered, ...] = ()
    problems: tuple[str, ...] = ()


class LaunchPlan(Value):
    """What giving a release to many groups would do. Nothing has been sent.

    Which device gets which variant is told by the plan of a single group.
    """

    groups: tuple[GroupPlan, ...]
    policy: RolloutPolicy | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What will be refused, and where."""
        return tuple(f"{plan.group}: {said}" for plan in self.groups for said in plan.problems)

    @property
    def documents(self) -> tuple[Rendered, ...]:
        """All that would be in place; one that groups share is there once."""
        found = {document.path: document for plan in self.groups for document in plan.documents}
        return tuple(found.values())

    @property
    def headline(self) -> str:
        """One line that sums it up."""
        changing = sum(not plan.unchanged for plan in self.groups)
        text = f"{_groups(len(self.groups))}, {changing} of them to change"
        counts = [plan.devices for plan in self.groups]
        if None not in counts:
            text += f"; {sum(filter(None, counts))} devices"
        return text if self.policy is None else f"{text}; {self.policy}"

    def _rows(self) -> list[tuple[str, ...]]:
        return [(plan.group, _what(plan), "; ".join(plan.problems)) for plan in self.groups]

    def __str__(self) -> str:
        return _shown(self.headline, _PLAN_COLUMNS, self._rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(_PLAN_COLUMNS, self._rows()[:SHOWN], caption=self.headline)

    def facts(self) -> dict[str, Any]:
        """The plan as JSON-ready data; documents without their content."""
        facts = self.model_dump(mode="json", exclude={"groups": {"__all__": {"documents"}}})
        listed = [{"path": d.path, "action": d.action.value} for d in self.documents]
        return {**facts, "documents": listed, "problems": list(self.problems)}


class GroupLaunch(Value):
    """What came of one group.

    Attributes:
        group: ``deployer/name``.
        number: of the pointer that is on its channel; None where it wasn't given one.
        changed: whether this call put it there.
        error: why it wasn't given one; None where it was.
    """

    group: str
    number: int | None = None
    changed: bool = False
    error: str | None = None


class Launch(Value):
    """What came of giving a release to many groups. What devices make of it, their reports tell."""

    groups: tuple[GroupLaunch, ...]

    @property
    def failed(self) -> tuple[GroupLaunch, ...]:
        """Groups that weren't given it."""
        return tuple(one for one in self.groups if one.error is not None)

    @property
    def headline(self) -> str:
        """One line that sums it up."""
        changed = sum(one.changed for one in self.groups)
        same = len(self.groups) - changed - len(self.failed)
        text = f"given to {_groups(changed)}"
        if same:
            text += f", {same} had it already"
        return f"{text}, {len(self.failed)} failed" if self.failed else text

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (one.group, "-" if one.number is None else f"#{one.number}", one.error or "")
            for one in sorted(self.groups, key=lambda one: (one.error is None, one.group))
        ]

    def __str__(self) -> str:
        return _shown(self.headline, _COLUMNS, self._rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(_COLUMNS, self._rows()[:SHOWN], caption=self.headline)


_PLAN_COLUMNS = ("group", "changes", "problem")
_COLUMNS = ("group", "pointer", "problem")


def chosen(groups: Sequence[Group], wanted: Iterable[object]) -> tuple[Group, ...]:
    """The groups that names and patterns mean, each once, in the order of their references.

    Args:
        groups: those of the fleet.
        wanted: ``group`` or ``deployer/group``; ``*``, ``?`` and ``[…]`` stand for characters.

    Raises:
        InvalidInputError: nothing is wanted, or something that is no text.
        NotFoundError: one of them means no group.
        AmbiguousReferenceError: several deployers have a group of that bare name.
    """
    found: dict[str, Group] = {}
    names = tuple(map(check_group, wanted))
    if not names:
        raise InvalidInputError("no group is named", cure="name groups, or '*' for all")
    exact: dict[str, list[Group]] = {}
    for group in groups:
        exact.setdefault(group.name, []).append(group)
        exact.setdefault(group.reference, []).append(group)
    for name in names:
        if _WILD & set(name):
            hits = [g for g in groups if fnmatchcase(g.reference if "/" in name else g.name, name)]
        else:
            hits = exact.get(name, [])
            if len(hits) > 1:
                msg = f"group {name!r} is ambiguous"
                there = ", ".join(group.reference for group in hits)
                raise AmbiguousReferenceError(msg, cure=f"write one of {there}")
        if not hits:
            raise NotFoundError(
                f"no group {name!r}", cure="list them with: edgefleet status, or use a pattern"
            )
        found.update({group.reference: group for group in hits})
    return tuple(found[reference] for reference in sorted(found))


def _what(plan: GroupPlan) -> str:
    return ", ".join(str(one) for one in plan.changes if one.what != "keep") or "nothing changes"


def _groups(count: int) -> str:
    return "1 group" if count == 1 else f"{count} groups"


def _shown(headline: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    text = text_table(columns, rows[:SHOWN], caption=headline)
    rest = len(rows) - SHOWN
    return f"{text}\n… and {rest} more" if rest > 0 else text
