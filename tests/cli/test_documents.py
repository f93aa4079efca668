"""What a dry run writes, and what it refuses to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgefleet.cli.documents import write_documents
from edgefleet.errors import InvalidInputError
from edgefleet.interfaces.values import Action, Rendered


def document(path: str, action: Action = Action.CREATE) -> Rendered:
    return Rendered(path=path, content=path.encode(), action=action)


def test_documents_are_written_by_their_paths_and_listed_in_the_plan(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    both = [document("b/two.json", Action.UNCHANGED), document("one.json")]
    write_documents(folder, both, {"group": "g"})
    assert (folder / "b" / "two.json").read_bytes() == b"b/two.json"
    plan = json.loads((folder / "plan.json").read_bytes())
    assert plan == {
        "group": "g",
        "documents": [
            {"path": "b/two.json", "action": "unchanged"},
            {"path": "one.json", "action": "create"},
        ],
    }


def test_an_earlier_dry_run_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_documents(folder, [document("a/old.json")], {})
    write_documents(folder, [document("new.json")], {})
    assert {p.name for p in folder.rglob("*")} == {"new.json", "plan.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("path", ["../out.json", "/etc/out.json", "a/../../b", "a//b", ""])
def test_a_path_that_leads_out_of_the_folder_is_refused_and_nothing_written(
    tmp_path: Path, path: str
) -> None:
    with pytest.raises(InvalidInputError, match="unsafe document path"):
        write_documents(tmp_path / "out", [document("fine.json"), document(path)], {})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("paths", [("a.json", "a.json"), ("plan.json",)])
def test_two_documents_of_one_path_are_refused(tmp_path: Path, paths: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match="two documents"):
        write_documents(tmp_path / "out", [document(path) for path in paths], {})


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(InvalidInputError, match=r"thesis\.txt"):
        write_documents(tmp_path, [document("one.json")], {})
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InvalidInputError, match="is no folder"):
        write_documents(tmp_path / "link", [document("one.json")], {})
