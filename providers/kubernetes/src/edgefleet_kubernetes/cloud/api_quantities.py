"""Amounts of resources as Kubernetes writes them: ``500m``, ``2``, ``1Gi``."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_QUANTITY = re.compile(r"([+-]?[0-9.]+)([eE][-+]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?")
_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}


def amount(quantity: Any) -> Decimal:  # noqa: ANN401 - JSON
    """What a quantity comes to.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None:
        raise ValueError(f"not a quantity: {quantity!r}")
    number, suffix = found.group(1), found.group(2) or ""
    try:
        if suffix[:1] in {"e", "E"} and len(suffix) > 1:
            return Decimal(number + suffix)
        return Decimal(number) * _SUFFIXES[suffix]
    except ArithmeticError as error:
        raise ValueError(f"not a quantity: {quantity!r}") from error


def written(value: Decimal) -> str:
    """An amount as a plain quantity: whole, or in thousandths."""
    if value == value.to_integral_value():
        return str(int(value))
    return f"{int(value * 1000)}m"
