"""What the commands share: options that several take, and how their values are read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from edgefleet_runtime.engines.base import EngineOptions

MAX_PORT = 65535
MAX_THREADS = 1024  # of one run; a mistyped number is told, rather than tried
_T = TypeVar("_T")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Declare where models run: ``--device``, ``--strict``, ``--engine-cache``, ``--threads``."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="where models run: auto, cpu, cuda, tensorrt, openvino, intel-gpu, intel-npu, qnn, "
        "coreml, edgetpu, or an execution provider's own name (default: %(default)s)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse a model of which anything runs on something slower than --device",
    )
    parser.add_argument(
        "--engine-cache",
        type=Path,
        metavar="DIR",
        help="keep the engines that TensorRT builds here, for the next start; one folder for each "
        "model, TensorRT, driver and GPU; and the graphs that ONNX Runtime optimizes for this CPU",
    )
    parser.add_argument(
        "--throughput",
        choices=("measured", "always", "never"),
        default="measured",
        help="whether requests that run at the same time get one thread each, on the CPU; a model "
        "takes its memory twice then (default: where there is room and their traffic shows a gain)",
    )
    parser.add_argument(
        "--provider-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of --device's execution provider, by its vendor's name; may be given "
        "several times",
    )
    parser.add_argument(
        "--gpu-memory",
        type=int,
        default=0,
        metavar="BYTES",
        help="how much of a GPU's memory one model may take (default: no limit of ours)",
    )
    parser.add_argument(
        "--allow-custom-ops",
        action="append",
        default=[],
        metavar="sha256:DIGEST",
        help="load a library of custom operators that lies beside a model, if this is its digest; "
        "may be given several times (default: none is loaded)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads for one run of a model; 'bench' tells what is best (default: the engine's "
        "own choice)",
    )


def engine_options(arguments: argparse.Namespace) -> EngineOptions:
    """What `add_device` declared, as engines take it.

    Raises:
        InvalidInputError: an option's value is wrong.
    """
    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.engines.custom_ops import checked_digests
    from edgefleet_runtime.engines.devices import providers_of

    if arguments.gpu_memory < 0:
        raise InvalidInputError("--gpu-memory takes no negative number", cure="0 is for no limit")
    if not 0 <= arguments.threads <= MAX_THREADS:
        raise InvalidInputError(
            f"--threads takes no more than {MAX_THREADS}, and no negative number",
            cure="0 leaves it to the engine; 'bench' tells what is best here",
        )
    return EngineOptions(
        providers=providers_of(arguments.device),
        strict=arguments.strict,
        threads=arguments.threads,
        throughput=arguments.throughput,
        engine_cache=arguments.engine_cache,
        provider_options=tuple(pairs(arguments.provider_option, "--provider-option").items()),
        memory_max_bytes=arguments.gpu_memory,
        custom_ops=checked_digests(arguments.allow_custom_ops),
    )


def address(text: str) -> tuple[str | None, int]:
    """Host and port of ``HOST:PORT``; no host for ``none``.

    Raises:
        InvalidInputError: it is neither.
    """
    if text == "none":
        return None, 0
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdecimal()):
        raise InvalidInputError(
            f"not an address to serve on: {text!r}", cure="write HOST:PORT, such as 127.0.0.1:8080"
        )
    if len(port) > len(str(MAX_PORT)) or int(port) > MAX_PORT:
        raise InvalidInputError(
            f"no such port: {port[:20]}", cure=f"name one up to {MAX_PORT}, or 0 for a free one"
        )
    return host.strip("[]"), int(port)


def told(settings: dict[str, object], kind: type[_T]) -> _T:
    """Settings that a command line gave.

    Raises:
        InvalidInputError: one is out of its bounds; the message names it.
    """
    from msgspec import ValidationError

    from edgefleet.protocol.typed import convert

    try:
        return convert(settings, kind)
    except ValidationError as error:
        raise InvalidInputError(f"wrong settings: {error}", cure="see --help") from error


def duration(text: str) -> float:
    """A number of seconds above 0, for an option's ``type``.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    from argparse import ArgumentTypeError

    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"not a number of seconds above 0: {text[:40]!r}")
    return value


def pairs(items: Iterable[str], option: str) -> dict[str, str]:
    """What ``option KEY=VALUE`` said, each time it was given.

    Raises:
        InvalidInputError: one is no such pair.
    """
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (equals and key):
            raise InvalidInputError(f"not KEY=VALUE: {item!r}", cure=f"write {option} key=value")
        found[key] = value
    return found
