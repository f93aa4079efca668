"""Prices as data: what a provider's meters count, and what a unit costs.

A meter counts flows, which mean the same everywhere; how it rounds and what it charges is the
provider's. Prices are read from TOML, each with the date it was looked up and where.
"""

from __future__ import annotations

import tomllib
from datetime import date
from importlib.resources import files
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from edgefleet.errors import InvalidInputError
from edgefleet.interfaces.values import Value

FLOWS: dict[str, str] = {
    "device": "devices that are connected in a month",
    "connected": "minutes that devices are connected",
    "hot": "messages of alarms and health events",
    "report": "reports of what devices run",
    "query": "devices whose state an operator asks for",
    "put": "objects that devices write: segments and samples",
    "get": "objects that are read: models by devices, recordings by operators",
    "stored": "bytes that are kept",
    "out": "bytes that leave to devices and operators",
}
"""What meters may count, each with a size in bytes."""

Amount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Above0 = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Tier(Value):
    """A price that holds up to an amount of billed units in a month; without one, beyond."""

    price: Amount
    up_to: Above0 | None = None


class Block(Value):
    """Capacity that is bought by the month: so many billed units a day, for a price each."""

    name: str
    per_day: Above0
    price: Amount


class Meter(Value):
    """What a provider counts and charges.

    Attributes:
        name: as the provider calls it.
        role: whether telemetry needs it, or delivery.
        flows: what it counts, of `FLOWS`.
        measure: whether things are counted, or their bytes.
        unit_bytes: a thing counts once for so many bytes, or part of them; None: once.
        min_bytes: of a thing, where bytes are counted.
        times: units for each that is counted.
        per: prices are for so many units.
        tiers: prices, ascending; or else
        blocks: what can be bought by the month, the cheapest of which is taken.
        source: address of the page the price is from.
        read: when it was looked up.
        assumed: the page didn't tell it, or not for this region: it is from elsewhere.
        note: what else to know.
    """

    name: str
    role: Literal["telemetry", "delivery"]
    flows: Annotated[tuple[str, ...], Field(min_length=1)]
    measure: Literal["count", "bytes"] = "count"
    unit_bytes: Annotated[int, Field(gt=0)] | None = None
    min_bytes: Annotated[int, Field(ge=0)] = 0
    times: Above0 = 1.0
    per: Above0 = 1.0
    tiers: tuple[Tier, ...] = ()
    blocks: tuple[Block, ...] = ()
    source: str
    read: date
    assumed: bool = False
    note: str = ""

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        unknown = [flow for flow in self.flows if flow not in FLOWS]
        if unknown:
            msg = f"meter {self.name!r} counts {unknown[0]!r}; there is {', '.join(FLOWS)}"
            raise ValueError(msg)
        if bool(self.tiers) == bool(self.blocks):
            msg = f"meter {self.name!r} needs tiers or blocks, and not both"
            raise ValueError(msg)
        ends = [tier.up_to for tier in self.tiers]
        limits = [end for end in ends[:-1] if end is not None]
        if self.tiers and (ends[-1] is not None or len(limits) < len(ends) - 1):
            msg = f"the last tier of meter {self.name!r}, and it alone, has no up_to"
            raise ValueError(msg)
        if limits != sorted(set(limits)):
            msg = f"tiers of meter {self.name!r} don't ascend"
            raise ValueError(msg)
        return self


class Prices(Value):
    """The prices of a provider, for one region.

    Attributes:
        provider: its name.
        region: where the prices hold.
        currency: ISO 4217.
        meters: none where nothing is billed.
        note: what else to know.
    """

    provider: str
    region: str
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    meters: tuple[Meter, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [meter.name for meter in self.meters]
        if len(set(names)) < len(names):
            msg = "two meters have the same name"
            raise ValueError(msg)
        return self

    def over(self, before: Prices | None) -> Prices:
        """These, and of what was known before those meters that these don't name.

        Raises:
            InvalidInputError: the two have different currencies.
        """
        if before is None or not before.meters:
            return self
        if before.currency != self.currency:
            msg = f"the prices given are in {self.currency}, the others in {before.currency}"
            raise InvalidInputError(msg, cure=f"give all meters in {before.currency}")
        meters = {meter.name: meter for meter in (*before.meters, *self.meters)}
        return self.model_copy(update={"meters": tuple(meters.values())})


def read_prices(data: bytes, *, name: str = "prices") -> Prices:
    """Prices from TOML: the fields of `Prices`, each meter a ``[[meters]]``.

    Args:
        data: the file's content.
        name: of the file, for messages.

    Raises:
        InvalidInputError: it is malformed, or a meter counts what there isn't.
    """
    try:
        return Prices.model_validate(tomllib.loads(data.decode()))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        msg = f"{name}: {where}: {first['msg']}" if where else f"{name}: {first['msg']}"
        raise InvalidInputError(msg, cure="mend that line of the file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{name}: {error}", cure="mend that line of the file") from error


def prices_in(package: str) -> Prices:
    """Prices from the file ``prices.toml`` of an installed package; see `read_prices`."""
    name = "prices.toml"
    return read_prices(files(package).joinpath(name).read_bytes(), name=f"{package}/{name}")
