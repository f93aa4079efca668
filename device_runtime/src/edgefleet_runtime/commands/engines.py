"""List, export and import engines that were built from models on this device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from edgefleet_runtime.engines.cache import Entry


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    show = actions.add_parser("list", help="what is here, and what it was built for")
    show.add_argument("--json", action="store_true", help="print the facts as JSON")
    show.set_defaults(command=_list)
    out = actions.add_parser("export", help="write an engine as one file")
    out.add_argument("key", metavar="KEY", help="as 'list' names it; its beginning is enough")
    out.add_argument("file", type=Path, metavar="FILE")
    out.set_defaults(command=_export)
    take = actions.add_parser("import", help="take an engine that a device just like this exported")
    take.add_argument("file", type=Path, metavar="FILE")
    take.add_argument(
        "--max-bytes", type=int, metavar="N", help="most that it may take (default 4 GiB)"
    )
    take.set_defaults(command=_import)
    for action in (show, out, take):
        where = action.add_mutually_exclusive_group(required=True)
        where.add_argument("--root", type=Path, metavar="DIR", help="the folder of 'run'")
        where.add_argument(
            "--engine-cache", type=Path, metavar="DIR", help="the folder of 'serve --engine-cache'"
        )


def _folder(arguments: argparse.Namespace) -> Path:
    from edgefleet_runtime.config import ENGINES

    folder: Path = arguments.engine_cache or arguments.root / ENGINES
    return folder


def _list(arguments: argparse.Namespace) -> int:
    from edgefleet_runtime.engines.cache import EngineCache

    entries = EngineCache(_folder(arguments)).entries()
    if arguments.json:
        print(json.dumps([_facts(key, entry) for key, entry in entries.items()], indent=2))
        return 0
    if not entries:
        print(f"no engines are kept in {_folder(arguments)}")
    for key, entry in entries.items():
        parts = entry.parts
        machine = ", ".join(f"{name} {value}" for name, value in parts.machine.items())
        print(f"{key[:16]}  {entry.bytes} bytes  {parts.provider}  {machine}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from edgefleet.errors import NotFoundError
    from edgefleet_runtime.engines.cache import EngineCache
    from edgefleet_runtime.engines.transfer import export_engine

    cache = EngineCache(_folder(arguments))
    keys = [key for key in cache.entries() if key.startswith(arguments.key)]
    if len(keys) != 1:
        raise NotFoundError(
            f"{len(keys)} engines begin with {arguments.key!r}", cure="see 'engines list'"
        )
    entry = export_engine(cache, keys[0], arguments.file)
    print(f"{arguments.file}: {entry.bytes} bytes")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from edgefleet_runtime.engines.cache import MAX_BYTES, EngineCache
    from edgefleet_runtime.engines.transfer import import_engine

    limit = MAX_BYTES if arguments.max_bytes is None else arguments.max_bytes
    cache = EngineCache(_folder(arguments))
    entry = import_engine(cache, arguments.file, _machine_of, max_bytes=limit)
    print(f"{entry.parts.key[:16]}: {entry.bytes} bytes, for {entry.parts.provider}")
    return 0


def _machine_of(builder: str) -> Mapping[str, str] | None:
    from edgefleet_runtime.engines.building import CanBuild
    from edgefleet_runtime.engines.discovery import engine_named

    engine: object = engine_named(builder)
    return engine.machine() if isinstance(engine, CanBuild) else None


def _facts(key: str, entry: Entry) -> dict[str, object]:
    parts = entry.parts
    return {
        "key": key,
        "bytes": entry.bytes,
        "builder": parts.builder,
        "provider": parts.provider,
        "model": parts.model,
        "options": parts.options,
        "machine": parts.machine,
    }
