"""Writes Prometheus' text format. Pure: values in, bytes out.

Version 0.0.4, which every scraper reads:
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format. Why by hand: ADR 7.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABEL = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Sample(NamedTuple):
    """One figure and what tells it from others of its family."""

    value: float
    labels: Mapping[str, str] = {}


class Family(NamedTuple):
    """Figures of one name. No two samples may have the same labels."""

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    samples: tuple[Sample, ...]


def render(families: Iterable[Family]) -> bytes:
    """The families as a scraper reads them; one without samples is left out."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines.append(f"# HELP {family.name} {family.about.translate(_HELP)}\n")
            lines.append(f"# TYPE {family.name} {family.kind}\n")
            lines += [_line(family.name, sample) for sample in family.samples]
    # A label may hold what came from outside: nothing that isn't Unicode text may stop a scrape.
    return "".join(lines).encode(errors="replace")


def _line(name: str, sample: Sample) -> str:
    labels = ",".join(f'{key}="{text.translate(_LABEL)}"' for key, text in sample.labels.items())
    return (
        f"{name}{{{labels}}} {_number(sample.value)}\n"
        if labels
        else (f"{name} {_number(sample.value)}\n")
    )


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
