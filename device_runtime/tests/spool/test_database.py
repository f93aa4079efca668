"""The spool's file: what its pragmas really do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_runtime.spool.budget import share_out
from edgefleet_runtime.spool.database import NAME, Database

if TYPE_CHECKING:
    from pathlib import Path


def test_as_many_pages_are_given_back_as_were_asked_for(tmp_path: Path) -> None:
    database = Database(tmp_path / NAME, share_out(4 << 20))
    try:
        with database.change() as sql:
            sql.execute("CREATE TABLE filled(content BLOB)")
            sql.executemany("INSERT INTO filled VALUES (zeroblob(3000))", [()] * 300)
        with database.change() as sql:
            sql.execute("DROP TABLE filled")
        pages, free = database.pages, database.free_pages
        assert free > 300
        database.give_back(200)
        assert database.free_pages == free - 200
        assert database.pages <= pages - 200, "with pages that only told where the others lay"
    finally:
        database.close()


def test_an_open_database_has_no_file_beside_it_but_its_log(tmp_path: Path) -> None:
    budget = share_out(4 << 20)
    for _ in range(2):  # made, and found
        database = Database(tmp_path / NAME, budget)
        with database.change() as sql:
            sql.execute("CREATE TABLE IF NOT EXISTS filled(content BLOB)")
        assert {path.name for path in tmp_path.iterdir()} == {NAME, database.log_path.name}
        database.close()
