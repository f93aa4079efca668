"""Shapes of what Azure Resource Manager answers."""

from __future__ import annotations

from typing import Any

import msgspec


class Page(msgspec.Struct, frozen=True, rename="camel"):
    """A page of a list.

    https://github.com/microsoft/api-guidelines/blob/vNext/azure/Guidelines.md#collections

    Attributes:
        value: what is on it.
        next_link: address of the next; None after the last.
    """

    value: list[dict[str, Any]]
    next_link: str | None = None
