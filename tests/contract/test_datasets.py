"""What datasets write stays readable, and their reference says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from edgefleet.analysis import dataset_records, dataset_rows, labelling, run_records
from edgefleet.errors import DocumentError, UnknownFeatureError
from edgefleet.protocol.documents import Document, decode, encode
from tests.contract.dataset_samples import DOCUMENTS, GOLDEN
from tests.contract.test_docs import TABLE, cells, default_of

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "datasets.md").read_text(
    encoding="utf-8"
)
TABLES: dict[str, str] = dict(TABLE.findall(PAGE))
KINDS = {
    name: kind
    for module in (dataset_records, dataset_rows, labelling, run_records)
    for name, kind in vars(module).items()
    if isinstance(kind, type)
    and issubclass(kind, msgspec.Struct)
    and kind.__module__ == module.__name__
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_bytes_of_a_document_stay(name: str) -> None:
    golden = (GOLDEN / name).read_bytes()
    assert encode(DOCUMENTS[name]) == golden
    assert decode(type(DOCUMENTS[name]), golden) == DOCUMENTS[name]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_field_from_the_future_is_ignored_and_a_feature_refused(name: str) -> None:
    plain = json.loads((GOLDEN / name).read_bytes())
    later = json.dumps({**plain, "version": 9, "later": {"a": 1}}).encode()
    read = decode(type(DOCUMENTS[name]), later)
    assert msgspec.structs.replace(read, version=1) == DOCUMENTS[name]
    with pytest.raises(UnknownFeatureError):
        decode(type(DOCUMENTS[name]), json.dumps({**plain, "requires": ["later"]}).encode())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_malformed_document_is_refused(name: str) -> None:
    plain = json.loads((GOLDEN / name).read_bytes())
    for field in plain.keys() - {"version", "requires"}:
        with pytest.raises(DocumentError):
            decode(type(DOCUMENTS[name]), json.dumps({**plain, field: True}).encode())


def test_every_kind_of_document_has_a_table() -> None:
    assert TABLES.keys() == KINDS.keys()


@pytest.mark.parametrize("name", TABLES)
def test_table_lists_the_fields_and_their_defaults(name: str) -> None:
    header = {"version", "requires"} if issubclass(KINDS[name], Document) else set()
    coded = {
        f"`{field.encode_name}`": default_of(field)
        for field in msgspec.structs.fields(KINDS[name])
        if field.name not in header
    }
    assert {row[0]: row[2] for row in cells(TABLES[name])} == coded


@pytest.mark.parametrize(
    "name, text", re.findall(r"<!-- golden: (\S+) -->\n```json\n(.*?)\n```", PAGE, re.DOTALL)
)
def test_example_is_the_golden_file(name: str, text: str) -> None:
    assert json.loads(text) == json.loads((GOLDEN / name).read_bytes())


def test_the_table_s_columns_are_the_row_s_fields() -> None:
    fields = {field.name for field in msgspec.structs.fields(dataset_rows.Row)}
    assert set(dataset_rows.schema().names) == fields
