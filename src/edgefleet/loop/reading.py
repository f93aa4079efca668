"""Reading a ``loop.yaml``: plain YAML, every field known, an error with its line.

Anchors and aliases are refused: a few lines of them can stand for gigabytes. So is a key that is
written twice, of which YAML's readers silently take the last.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgefleet.errors import InvalidInputError, MissingExtraError
from edgefleet.loop.spec import LoopSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    import yaml

MAX_BYTES = 256 << 10
_PATHS = (("dataset", "labels"), ("train", "script"), ("compare", "frozen"))
_FUNCTIONS = (("optimize", "evaluate"), ("compare", "metric"))

Lines = dict[tuple[str | int, ...], int]


def read_spec(path: Path | str) -> LoopSpec:
    """The loop that a file describes; its relative paths start from the file's folder.

    Raises:
        InvalidInputError: there is no such file, it is no YAML, or a field is unknown or wrong; the
            message says in which line.
        MissingExtraError: the extra ``loop`` isn't installed.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise InvalidInputError(msg, cure="give the path of a loop's YAML file") from error
    if len(data) > MAX_BYTES:
        msg = f"{path} has {len(data)} bytes, {MAX_BYTES} are allowed"
        raise InvalidInputError(msg, cure="a loop's file holds settings, no data")
    content, lines = _parsed(path, data)
    for section, key in _PATHS:
        _resolve(content, section, key, path.parent)
    for section, key in _FUNCTIONS:
        _resolve_function(content, section, key, path.parent)
    try:
        return LoopSpec.model_validate(content)
    except ValidationError as error:
        raise _refusal(path, error, lines) from error


def _parsed(path: Path, data: bytes) -> tuple[dict[str, Any], Lines]:
    try:
        import cronsim  # noqa: F401, PLC0415 - a trigger may need it
        import yaml  # noqa: PLC0415
    except ImportError as error:
        msg = "loops need PyYAML and cronsim"
        cure = "install them with: pip install 'edgefleet[loop]'"
        raise MissingExtraError(msg, cure=cure) from error
    try:
        text = data.decode("utf-8")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = 0 if event.start_mark is None else event.start_mark.line + 1
                msg = f"{path}, line {line}: an alias (*{event.anchor})"
                raise InvalidInputError(msg, cure="write out what it stands for")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = dict(_lines(path, root)) if root is not None else {}
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is no YAML: {' '.join(str(error).split())}"
        raise InvalidInputError(msg, cure="mend the line it names") from error
    if not isinstance(content, dict):
        msg = f"{path} holds no mapping"
        raise InvalidInputError(msg, cure="begin with:  name: my-loop")
    return content, lines


def _lines(
    path: Path, node: yaml.Node, where: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """The line of each value, by its path; of a key's own line where its value is a block."""
    import yaml  # noqa: PLC0415

    if isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                msg = f"{path}, line {line}: {name!r} is written twice"
                raise InvalidInputError(msg, cure="keep one of them")
            seen.add(name)
            yield (*where, name), line
            yield from _lines(path, value, (*where, name))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*where, index), item.start_mark.line + 1
            yield from _lines(path, item, (*where, index))


def _resolve(content: dict[str, Any], section: str, key: str, folder: Path) -> None:
    table = content.get(section)
    if isinstance(table, dict) and isinstance(table.get(key), str):
        table[key] = (folder / table[key]).absolute()


def _resolve_function(content: dict[str, Any], section: str, key: str, folder: Path) -> None:
    """``PATH.py:FUNCTION`` from the file's folder; what names a module stays."""
    table = content.get(section)
    given = table.get(key) if isinstance(table, dict) else None
    if isinstance(given, str) and isinstance(table, dict):
        home, colon, function = given.rpartition(":")
        if colon and home.endswith(".py"):
            table[key] = f"{(folder / home).absolute()}:{function}"


def _refusal(path: Path, error: ValidationError, lines: Lines) -> InvalidInputError:
    """The first problem with the line that it stands in."""
    found = error.errors(include_url=False, include_input=False)
    # A misspelt key is missing under its right name, too: the misspelling says more.
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    parts = first["loc"]
    known = parts
    while known and known not in lines:  # what is missing stands in no line: its section does
        known = known[:-1]
    where = f"{path}, line {lines[known]}" if known else str(path)
    name = ".".join(str(part) for part in parts)
    unknown = first["type"] == "extra_forbidden"
    said = "is unknown" if unknown else str(first["msg"]).removeprefix("Value error, ")
    msg = f"{where}: {name}: {said}" if name else f"{where}: {said}"
    return InvalidInputError(msg, cure="every field: docs/how-to/close-the-loop.md")
