"""The pages about drift, cost and events as a table say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from edgefleet.interfaces.event_columns import FIELDS, HEAD
from edgefleet.interfaces.event_table import ibis_schema
from edgefleet.interfaces.pricing import FLOWS, read_prices
from edgefleet.protocol.drift import MASS_ERROR, RANK_ERROR

DOCS = Path(__file__).parents[2] / "docs"
HOW_TO = (DOCS / "how-to/see-drift-losses-and-cost.md").read_text(encoding="utf-8")
TABLE = (DOCS / "reference/events-as-a-table.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", re.MULTILINE)


def test_the_page_lists_every_column_as_it_is() -> None:
    types = {name: kind.partition("(")[0] for name, kind in ibis_schema().items()}
    about = HEAD | {field.name: field.about for field in FIELDS}
    assert ROW.findall(TABLE) == [(name, types[name], about[name]) for name in about]


def test_the_views_have_each_field_by_its_path() -> None:
    view = TABLE[TABLE.index("CREATE VIEW edgefleet_events") :]
    assert all(f"'{field.json_path}'" in view for field in FIELDS)


def test_the_page_quotes_the_error_of_sketches() -> None:
    assert f"{2 * RANK_ERROR:.2%}".replace("%", " %") in HOW_TO
    assert f"{MASS_ERROR:.2%}".replace("%", " %") in HOW_TO


def test_the_file_of_prices_on_the_page_can_be_read() -> None:
    found = re.search(r"<!-- prices -->\n```toml\n(.*?)```", HOW_TO, re.DOTALL)
    assert found is not None
    assert read_prices(found[1].encode()).meters
    listed = re.search(r"flows = .*# (.*)", found[1])
    assert listed is not None
    assert listed[1].split(", ") == list(FLOWS)
