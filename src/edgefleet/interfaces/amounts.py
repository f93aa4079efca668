"""Amounts as people read them."""

from __future__ import annotations


def size_text(size: int | None) -> str:
    """Bytes with three digits, in powers of ten; ``-`` for None."""
    if size is None:
        return "-"
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
