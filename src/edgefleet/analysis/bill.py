"""From what a fleet uses in a month to a bill: pure."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import date
from typing import TYPE_CHECKING

from edgefleet.interfaces.amounts import size_text
from edgefleet.interfaces.pricing import FLOWS, Meter, Prices
from edgefleet.interfaces.tables import html_table, text_table
from edgefleet.interfaces.values import Value

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from edgefleet.interfaces.pictures import Picture

MONTH_S = 365.25 / 12 * 86_400.0  # seconds of a month
_DAYS = MONTH_S / 86_400.0
_LINES = ("provider", "meter", "billed units", "cost", "prices of", "")
_FLOWS = ("flow", "a month", "bytes", "")


class Usage(Value):
    """What a fleet uses in a month.

    Attributes:
        devices: how many there are.
        flows: by name of `FLOWS`, sizes in bytes and how many things of each there are.
        assumptions: what wasn't measured, in words.
    """

    devices: int
    flows: dict[str, tuple[tuple[float, float], ...]]
    assumptions: tuple[str, ...] = ()

    def count(self, flow: str) -> float:
        """How many things of a flow there are."""
        return sum(count for _, count in self.flows.get(flow, ()))

    def size(self, flow: str) -> float:
        """Bytes of all of them together."""
        return sum(size * count for size, count in self.flows.get(flow, ()))


class Line(Value):
    """What one meter comes to in a month.

    Attributes:
        provider: its name.
        meter: the meter's.
        units: billed ones, after rounding.
        cost: in the currency.
        currency: ISO 4217.
        block: what is bought and how many, where capacity is.
        source: address of the page that the price is from.
        read: when it was looked up.
        assumed: the page didn't tell it.
        note: what else to know.
    """

    provider: str
    meter: str
    units: float
    cost: float
    currency: str
    block: str = ""
    source: str
    read: date
    assumed: bool = False
    note: str = ""


class Bill(Value):
    """What a fleet's telemetry and delivery come to in a month.

    Attributes:
        usage: what is billed.
        lines: a row a meter, the dearest first.
        unpriced: providers whose prices aren't known here.
        notes: of providers that bill nothing, and the regions of those that do.
    """

    usage: Usage
    lines: tuple[Line, ...] = ()
    unpriced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def totals(self) -> dict[str, float]:
        """Cost of all meters, by currency."""
        sums: dict[str, float] = defaultdict(float)
        for line in self.lines:
            sums[line.currency] += line.cost
        return dict(sums)

    def __str__(self) -> str:
        parts = [text_table(_FLOWS, self._flow_cells(), caption=self._caption())]
        if self.lines:
            parts.append(text_table(_LINES, map(_line_cells, self.lines)))
        return "\n\n".join([*parts, "\n".join(self._told())])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape

        tables = html_table(_FLOWS, self._flow_cells(), caption=self._caption())
        if self.lines:
            tables += html_table(_LINES, map(_line_cells, self.lines))
        return tables + "".join(f"<p>{escape(one)}</p>" for one in self._told())

    def to_json(self) -> str:
        """All of it as JSON."""
        return self.model_dump_json(indent=2)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Picture:
        """What each meter costs, as a PNG.

        Args:
            path: of a file to write as well.

        Raises:
            MissingExtraError: matplotlib isn't installed.
        """
        from edgefleet.analysis.bill_plot import draw

        return draw(self._caption(), self.lines, path=path)

    def _caption(self) -> str:
        found = ", ".join(f"{cost:,.2f} {name}" for name, cost in sorted(self.totals.items()))
        total = found or ("an unknown sum" if self.unpriced else "nothing")
        rest = (
            f", without what {' and '.join(self.unpriced)} cost" if found and self.unpriced else ""
        )
        return f"{self.usage.devices:,} devices: {total} a month{rest}"

    def _flow_cells(self) -> list[tuple[str, ...]]:
        return [
            (flow, f"{self.usage.count(flow):,.0f}", size_text(round(self.usage.size(flow))), about)
            for flow, about in FLOWS.items()
        ]

    def _told(self) -> Iterator[str]:
        yield from self.notes
        for provider in self.unpriced:
            yield f"prices of {provider} are not known: give a file of them"
        if any(line.assumed for line in self.lines):
            yield "assumed: the price is not from the provider's own page"
        for line in self.lines:
            if line.note:
                yield f"{line.meter}: {line.note}"
        yield from self.usage.assumptions
        yield "before taxes, discounts and free tiers for new accounts; not an offer"


def bill_of(usage: Usage, prices: Iterable[tuple[Prices, frozenset[str]]]) -> Bill:
    """What a usage comes to.

    Args:
        usage: of a month.
        prices: of each provider, with the roles that it serves: ``telemetry``, ``delivery``.
    """
    lines, notes = [], []
    for one, roles in prices:
        meters = [meter for meter in one.meters if meter.role in roles]
        lines += [_line(one, meter, usage) for meter in meters]
        if meters:
            notes.append(f"prices of {one.provider}: {one.region}. {one.note}".strip(". ") + ".")
        elif one.note:
            notes.append(f"{one.provider}: {one.note}")
    lines.sort(key=lambda line: (-line.cost, line.provider, line.meter))
    return Bill(usage=usage, lines=tuple(lines), notes=tuple(notes))


def units_of(meter: Meter, usage: Usage) -> float:
    """Billed units of a month: each thing is rounded by itself."""
    found = 0.0
    for flow in meter.flows:
        for size, count in usage.flows.get(flow, ()):
            if meter.measure == "bytes":
                found += max(size, meter.min_bytes) * count
            elif meter.unit_bytes is None:
                found += count
            else:
                found += max(1, math.ceil(size / meter.unit_bytes)) * count
    return found * meter.times


def cost_of(meter: Meter, units: float) -> tuple[float, str]:
    """What so many units cost in a month, and what is bought for them where capacity is."""
    if meter.blocks:
        bought = [
            (max(1, math.ceil(units / _DAYS / block.per_day)), block) for block in meter.blocks
        ]
        number, block = min(bought, key=lambda one: one[0] * one[1].price)
        return number * block.price, f"{number} x {block.name}"
    cost, before = 0.0, 0.0
    for tier in meter.tiers:
        end = math.inf if tier.up_to is None else tier.up_to
        cost += max(0.0, min(units, end) - before) / meter.per * tier.price
        before = end
    return cost, ""


def _line(prices: Prices, meter: Meter, usage: Usage) -> Line:
    units = units_of(meter, usage)
    cost, block = cost_of(meter, units)
    return Line(
        provider=prices.provider,
        meter=meter.name,
        units=units,
        cost=cost,
        currency=prices.currency,
        block=block,
        source=meter.source,
        read=meter.read,
        assumed=meter.assumed,
        note=meter.note,
    )


def _line_cells(line: Line) -> tuple[str, ...]:
    units = f"{line.units:,.0f}" + (f" ({line.block})" if line.block else "")
    return (
        line.provider,
        line.meter,
        units,
        f"{line.cost:,.2f} {line.currency}",
        line.read.isoformat(),
        "assumed" if line.assumed else "",
    )
