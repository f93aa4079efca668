"""The protocol's reference says what the code does: its tables, its examples, its figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from edgefleet.protocol import (
    bundle,
    drift,
    event,
    orders,
    pointer,
    policy,
    release,
    report,
    sketch,
    steps,
    target,
)
from edgefleet.protocol.documents import Document
from tests.contract import samples

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "protocol.md").read_text(
    encoding="utf-8"
)
GOLDEN = Path(__file__).parent / "golden"
KINDS = {
    name: kind
    for module in (bundle, drift, event, orders, pointer, policy, release, report, sketch, target)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
}
NOT_OF_OURS = {"Descriptor", "Manifest", "Index"}  # OCI's
NOT_ON_THE_WIRE = {"Document", "Variant", "Choice"}

TABLE = re.compile(r"<!-- fields: (\w+) -->\n\|.*\n\|[-|]+\n((?:\|.*\n)+)")
EXAMPLE = re.compile(r"<!-- (golden|bytes): (\S+) -->\n```json\n(.*?)\n```", re.DOTALL)
TABLES: dict[str, str] = dict(TABLE.findall(PAGE))


def cells(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|\n").split(" | ")] for line in table.splitlines()
    ]


def default_of(field: Any) -> str:
    if field.default is not msgspec.NODEFAULT:
        return f"`{msgspec.json.encode(field.default).decode()}`"
    if field.default_factory in {dict, list}:
        return f"`{json.dumps(field.default_factory())}`"
    return "required" if field.default_factory is msgspec.NODEFAULT else "always"


def test_every_kind_of_document_has_a_table() -> None:
    assert TABLES.keys() == KINDS.keys() - NOT_OF_OURS - NOT_ON_THE_WIRE


@pytest.mark.parametrize("name", TABLES)
def test_table_lists_the_fields_and_their_defaults(name: str) -> None:
    header = {"version", "requires"} if issubclass(KINDS[name], Document) else set()
    coded = {
        f"`{field.encode_name}`": default_of(field)
        for field in msgspec.structs.fields(KINDS[name])
        if field.name not in header
    }
    assert {row[0]: row[2] for row in cells(TABLES[name])} == coded


@pytest.mark.parametrize("how, name, text", EXAMPLE.findall(PAGE))
def test_example_is_the_golden_file(how: str, name: str, text: str) -> None:
    golden = (GOLDEN / name).read_text(encoding="utf-8")
    assert text == golden if how == "bytes" else json.loads(text) == json.loads(golden)


def test_every_step_is_listed_with_its_fields_and_their_defaults() -> None:
    table = re.search(r"<!-- steps -->\n\|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE)
    assert table is not None
    listed = {row[0]: row[1] for row in cells(table[1])}
    common = {field.name for field in msgspec.structs.fields(steps.StepBase)}
    coded = {}
    for kind in get_args(steps.Step):
        fields = [
            f"`{field.name}`"
            + ("" if default_of(field) == "required" else f" = {default_of(field)}")
            for field in msgspec.structs.fields(kind)
            if field.name not in common
        ]
        coded[f"`{kind.__struct_config__.tag}`"] = ", ".join(fields)
    assert listed == coded


def test_every_kind_has_an_example() -> None:
    shown = {name for _, name, _ in EXAMPLE.findall(PAGE)}
    assert shown >= {"pointer.json", "release.json", "report.json", "index.json", "manifest.json"}
    assert shown >= {"details.json", "target.json", "sketch-numbers.json", "sketch-classes.json"}
    assert any(name.startswith("event-") for name in shown)


def test_digest_of_the_release_that_runs_nothing_is_right() -> None:
    assert f"`{release.EMPTY.digest}`" in PAGE


def test_segment_s_path_is_right() -> None:
    assert f"<!-- path -->\n```text\n{samples.SEGMENT.path}\n```" in PAGE


def test_draws_of_the_cohort_are_right() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for salt, device, draw in rows:
        inside = pointer.Cohort(salt=salt, permille=int(draw) + 1)
        assert pointer.in_cohort(inside, device)
        assert not pointer.in_cohort(pointer.Cohort(salt=salt, permille=int(draw)), device)


@pytest.mark.parametrize(
    "what",
    [
        bundle.INDEX_MEDIA_TYPE,
        bundle.MANIFEST_MEDIA_TYPE,
        bundle.ARTIFACT_TYPE,
        bundle.CONFIG_MEDIA_TYPE,
        bundle.WEIGHT_MEDIA_TYPE,
        bundle.DETAILS_MEDIA_TYPE,
        bundle.FILEPATH,
        bundle.VARIANT_KEY,
        bundle.PRECISION_KEY,
        bundle.FORMAT_KEY,
        bundle.TARGETS_KEY,
        bundle.BYTES_KEY,
        bundle.OPSET_KEY,
        bundle.REQUIRES_KEY,
        *sorted(pointer.SCHEMES),
    ],
)
def test_every_agreed_string_is_named(what: str) -> None:
    assert f"`{what}`" in PAGE


@pytest.mark.parametrize(
    "limit, written",
    [
        (pointer.MAX_BYTES, "1,024 bytes"),
        (release.MAX_BYTES, "256 KiB"),
        (report.MAX_BYTES, "7 KiB"),
        (event.MAX_BYTES, "1 MiB"),
        (bundle.MAX_DETAILS_BYTES, "details 32 MiB"),
        (sketch.MAX_CLASSES, "4,096 classes"),
        (bundle.MAX_VARIANTS, "64 at most"),
        (steps.MAX_STEPS, "32 steps at most"),
    ],
)
def test_limits_are_right(limit: int, written: str) -> None:
    match = re.search(r"([\d,]+)(?: (KiB|MiB))?", written)
    assert match is not None
    unit = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20}[match[2]]
    assert int(match[1].replace(",", "")) * unit == limit
    assert written in PAGE
