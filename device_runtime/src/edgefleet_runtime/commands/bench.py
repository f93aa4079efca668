"""Measure a model on this device, and tell what to set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.commands.common import duration, pairs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.measuring import Figure

BATCHES = (2, 4, 8, 16)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "model", metavar="NAME|FILE", help="a model file, or a name in --model-repository"
    )
    parser.add_argument(
        "--model-repository", type=Path, metavar="DIR", help="where a model of that name is"
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="as of 'serve' (default: %(default)s)"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse if anything of it runs on something slower than --device",
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="INPUT=1,3,224,224",
        help="shape of an input with free lengths (else 1); no batches are tried then",
    )
    parser.add_argument(
        "--seconds",
        type=duration,
        default=1.0,
        help="how long each setting is measured (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    import msgspec

    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.engines.devices import providers_of
    from edgefleet_runtime.measuring import advise

    options = EngineOptions(providers=providers_of(arguments.device), strict=arguments.strict)
    path = _path_of(arguments.model, arguments.model_repository, options)
    shapes = {name: _shape(text) for name, text in pairs(arguments.shape, "--shape").items()}
    seen: dict[str, object] = {}
    figures = []
    for figure in _figures(path, options, shapes, arguments.seconds, seen):
        figures.append(figure)
        if not arguments.json:
            if len(figures) == 1:
                print(f"{path} on {seen['providers']} ({seen['engine']})")
                print(f"{'threads':>7} {'callers':>7} {'batch':>5} {'p50 µs':>10} {'p99 µs':>10} "
                      f"{'items/s':>10}")  # fmt: skip
            print(f"{figure.threads:7} {figure.callers:7} {figure.batch:5} {figure.p50_us:10.1f} "
                  f"{figure.p99_us:10.1f} {figure.items_per_s:10.1f}", flush=True)  # fmt: skip
    advice = advise(figures)
    if arguments.json:
        found = {"model": str(path), **seen, "figures": figures, "advice": advice}
        print(json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False))
    else:
        print("\nwhat to set", *(f"  {line}" for line in advice.lines), sep="\n")
    return 0


def _figures(
    path: Path,
    options: EngineOptions,
    shapes: dict[str, tuple[int, ...]],
    seconds: float,
    seen: dict[str, object],
) -> Iterator[Figure]:
    from msgspec.structs import replace

    from edgefleet_runtime.engines.discovery import engine_for
    from edgefleet_runtime.engines.samples import sample_inputs
    from edgefleet_runtime.measuring import can_batch, measure, thread_counts
    from edgefleet_runtime.standalone.loading import format_of

    engine = engine_for(format_of(path))
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    for threads in thread_counts(cores):
        model = engine.load(path, replace(options, threads=threads))
        try:
            seen.update(
                providers=", ".join(model.providers), engine=model.engine, nodes=dict(model.nodes)
            )
            inputs = sample_inputs(model.interface, shapes=shapes)
            yield measure(model, inputs, threads=threads, seconds=seconds)
            if threads == 1 and cores > 1:
                yield measure(model, inputs, threads=1, callers=cores, seconds=seconds)
            if not shapes and can_batch(model.interface):
                for batch in BATCHES:
                    inputs = sample_inputs(model.interface, batch=batch)
                    yield measure(model, inputs, threads=threads, batch=batch, seconds=seconds)
        finally:
            model.close()


def _path_of(model: str, repository: Path | None, options: EngineOptions) -> Path:
    if repository is None:
        path = Path(model)
        if not path.is_file():
            raise InvalidInputError(
                f"there is no file {model}",
                cure="name a model file, or the folder of its name with --model-repository DIR",
            )
        return path
    from edgefleet_runtime.serve.table import ModelTable
    from edgefleet_runtime.standalone.repository import ModelRepository

    return ModelRepository(repository, ModelTable(), options).find(model).path


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",") if text else []
    if not all(part.isdigit() and len(part) < 10 for part in parts):
        raise InvalidInputError(f"not a shape: {text[:100]!r}", cure="write lengths: 1,3,224,224")
    return tuple(int(part) for part in parts)
