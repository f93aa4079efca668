"""Dry runs, and what they write: every document that would be in place, and ``plan.json``."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from edgefleet.interfaces.values import Rendered

F = TypeVar("F", bound="Callable[..., Any]")

PLAN_FILE = "plan.json"


def dry_run_options(command: F) -> F:
    """``--dry-run`` and, with it only, ``--output``, a folder for `write_documents`."""

    @functools.wraps(command)
    def checked(*args: Any, dry_run: bool, output: Path | None, **rest: Any) -> object:  # noqa: ANN401 - handed on
        if output is not None and not dry_run:
            raise click.UsageError("--output goes with --dry-run")
        return command(*args, dry_run=dry_run, output=output, **rest)

    made: Any = checked
    options = (
        click.option("--dry-run", is_flag=True, help="Send nothing; show what it would do."),
        click.option(
            "--output",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="With --dry-run: write every document that would be in place, and plan.json, "
            "which says create, update or unchanged for each.",
        ),
    )
    for option in reversed(options):
        made = option(made)
    found: F = made
    return found


def write_documents(
    folder: Path, documents: Iterable[Rendered], facts: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Write documents and ``plan.json`` into a folder, whole or not at all.

    Args:
        folder: a new or empty one, or one that an earlier dry run wrote, which is replaced.
        documents: by their own relative paths.
        facts: what ``plan.json`` holds beside ``documents``.

    Returns:
        Path and action of each document, as in ``plan.json``.

    Raises:
        InvalidInputError: a document's path leads out of the folder, two are the same, or the
            folder holds something else.
    """
    wanted = _by_path(documents)
    listed = [{"path": path, "action": wanted[path].action.value} for path in sorted(wanted)]
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        for path, document in wanted.items():
            place = made / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(document.content)
        plan = json.dumps({**facts, "documents": listed}, indent=2, ensure_ascii=False)
        (made / PLAN_FILE).write_text(plan + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    return listed


def _by_path(documents: Iterable[Rendered]) -> dict[str, Rendered]:
    from edgefleet.protocol.names import check_path

    wanted: dict[str, Rendered] = {}
    for document in documents:
        path = check_path(document.path, what="document path")
        if path in wanted or path == PLAN_FILE:
            msg = f"two documents of this dry run have the path {path!r}"
            raise InvalidInputError(msg, cure="this is a defect of the provider; report it")
        wanted[path] = document
    return wanted


def _check_replaceable(folder: Path) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        msg = f"{folder} is no folder"
        raise InvalidInputError(msg, cure="name a folder that is new or empty")
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_symlink() or p.is_file()}
    strange = sorted(there - _written_before(folder))
    if strange:
        msg = f"{folder} holds something else: {strange[0]}"
        raise InvalidInputError(msg, cure="name a folder that is new, empty, or a dry run's")


def _written_before(folder: Path) -> set[str]:
    try:
        plan = json.loads((folder / PLAN_FILE).read_bytes())
        return {PLAN_FILE, *(document["path"] for document in plan["documents"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
