"""What the commands share: options that several take, and how their values are read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable


def add_device(parser: argparse.ArgumentParser) -> None:
    """Declare where models run: ``--device``, ``--strict``, ``--engine-cache``, ``--threads``."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="where models run: auto, cpu, cuda, tensorrt, openvino, qnn, coreml, or an execution "
        "provider's own name (default: %(default)s)",
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
        "model, TensorRT, driver and GPU",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads for one run of a model; 'bench' tells what is best (default: the engine's "
        "own choice)",
    )


def address(text: str) -> tuple[str | None, int]:
    """Host and port of ``HOST:PORT``; no host for ``none``.

    Raises:
        InvalidInputError: it is neither.
    """
    if text == "none":
        return None, 0
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise InvalidInputError(
            f"not an address to serve on: {text!r}", cure="write HOST:PORT, such as 127.0.0.1:8080"
        )
    return host.strip("[]"), int(port)


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
