"""The options that bound queues and batches, the same for every command that serves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

_MIB = 1 << 20


def add_batching(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options = parser.add_argument_group("how requests queue and run together")
    options.add_argument(
        "--no-batching", action="store_true", help="run each request by itself, whatever waits"
    )
    options.add_argument(
        "--max-batch-rows",
        type=int,
        metavar="N",
        help="rows that run together at most; fewer where measurements show no gain (default 64)",
    )
    options.add_argument(
        "--latency-budget-ms",
        type=float,
        metavar="MS",
        help="how long a batch may run; a request waits for one run and is answered by the next "
        "(default: four times as long as one row, or 1 ms)",
    )
    options.add_argument(
        "--max-queued",
        type=int,
        metavar="N",
        help="requests that wait for one model; further ones are told to come back (default 64)",
    )
    options.add_argument(
        "--max-held-mib",
        type=int,
        metavar="MIB",
        help="bodies of requests that aren't answered yet, together (default 256)",
    )


def batching_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """What was given, as `edgefleet_runtime.serve.queueing.BatchLimits` names it."""
    settings: dict[str, object] = {}
    if arguments.max_batch_rows is not None:
        settings["max_rows"] = arguments.max_batch_rows
    if arguments.no_batching:
        settings["max_rows"] = 1
    if arguments.latency_budget_ms is not None:
        budget_us = arguments.latency_budget_ms * 1000
        settings["latency_us"] = budget_us if math.isfinite(budget_us) else 0.0  # which is refused
    return settings


def limit_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """What was given, as `edgefleet_runtime.serve.messages.Limits` names it."""
    settings: dict[str, object] = {}
    if arguments.max_queued is not None:
        settings["max_requests"] = arguments.max_queued
    if arguments.max_held_mib is not None:
        settings["max_held_bytes"] = arguments.max_held_mib * _MIB
    return settings
