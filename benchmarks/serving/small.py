"""A tiny model over REST, a Unix socket and gRPC: what a server itself costs."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.serving import load, models
from benchmarks.serving.figures import Figure, Goal
from benchmarks.serving.raw import p50_us, session_of
from benchmarks.serving.under_test import UnderTest, serving

if TYPE_CHECKING:
    from benchmarks.serving.bench import Bench

MANY = 32  # clients
WARM = 500  # requests
RAW_RUNS = 5000


def rest(bench: Bench) -> list[Figure]:
    """One client and many over TCP, one over a Unix socket."""
    subject = models.mlp(bench.folder)
    session = session_of(subject.path, 1)
    one: dict[str, list[float]] = defaultdict(list)
    many: dict[str, list[float]] = defaultdict(list)
    socket: list[float] = []
    raw: list[float] = []
    with ExitStack() as stack:
        kinds = ("null", "floor", "ours")
        servers = {
            kind: stack.enter_context(serving(kind, subject, bench.folder / f"{kind}.sock"))
            for kind in kinds
        }
        over = {kind: load.Spot(server.rest.port) for kind, server in servers.items()}
        asked = dict.fromkeys(over, subject.binary)
        for name, peer in bench.peers(stack, subject).items():
            over[name], asked[name] = peer.rest, peer.request
        amounts = {name: bench.requests if name in kinds else bench.requests // 8 for name in over}
        for name, spot in over.items():
            load.rest(spot, asked[name], bench.folder, clients=8, requests=WARM)
        for number in bench.each_round():
            turns = bench.in_turn(over, number)
            raw.append(p50_us(lambda: session.run(None, subject.inputs), RAW_RUNS))
            for name in turns:
                spot = over[name]
                seen = load.rest(spot, asked[name], bench.folder, clients=1, requests=amounts[name])
                one[name].append(seen.p50_us)
                if name == "ours":
                    path = servers[name].rest
                    seen = load.rest(
                        path, asked[name], bench.folder, clients=1, requests=amounts[name]
                    )
                    socket.append(seen.p50_us)
            for name in turns:
                # A peer that makes 1,000 a second shouldn't take half a minute.
                count = amounts[name] * (8 if name in kinds else 2)
                spot = over[name]
                seen = load.rest(spot, asked[name], bench.folder, clients=MANY, requests=count)
                many[name].append(seen.per_s)
    above = {
        name: [seen - run for seen, run in zip(values, raw, strict=True)]
        for name, values in one.items()
    }
    others = [name for name in above if name not in kinds]
    return [
        Figure(
            "REST binary, MLP, 1 client: p50 over raw, against the floor's",
            "µs",
            above["floor"],
            above["ours"],
            Goal(1.15),
            peers={name: above[name] for name in others},
        ),
        Figure(
            f"REST binary, MLP, {MANY} clients: share of the null server",
            "/s",
            many["null"],
            many["ours"],
            Goal(0.45, at_most=False),
            peers={name: many[name] for name in others},
        ),
        Figure(
            f"the same of the floor, {MANY} clients: share of the null server",
            "/s",
            many["null"],
            many["floor"],
        ),
        Figure("Unix socket: p50 against TCP's", "µs", one["ours"], socket, Goal(1.05)),
    ]


def grpc(bench: Bench) -> list[Figure]:
    """One client and many over gRPC."""
    subject = models.mlp(bench.folder)
    session = session_of(subject.path, 1)
    one: dict[str, list[float]] = defaultdict(list)
    many: dict[str, list[float]] = defaultdict(list)
    requests = bench.requests // 2
    with ExitStack() as stack:
        servers: dict[str, UnderTest] = {
            kind: stack.enter_context(serving(f"{kind}+grpc", subject))
            for kind in ("floor", "ours")
        }
        servers |= {name: peer for name, peer in bench.peers(stack, subject).items() if peer.calls}
        for server in servers.values():
            load.calls(server.grpc, subject, bench.folder, clients=8, requests=WARM)
        for number in bench.each_round():
            turns = bench.in_turn(servers, number)
            run_us = p50_us(lambda: session.run(None, subject.inputs), RAW_RUNS)
            for name in turns:
                spot = servers[name].grpc
                seen = load.calls(spot, subject, bench.folder, clients=1, requests=requests)
                one[name].append(seen.p50_us - run_us)
            for name in turns:
                spot = servers[name].grpc
                count = requests * 2
                seen = load.calls(spot, subject, bench.folder, clients=MANY, requests=count)
                many[name].append(seen.per_s)
    others = [name for name in servers if name not in {"floor", "ours"}]
    return [
        Figure(
            "gRPC, MLP, 1 client: p50 over raw, against the floor's",
            "µs",
            one["floor"],
            one["ours"],
            Goal(1.1),
            peers={name: one[name] for name in others},
        ),
        Figure(
            f"gRPC, MLP, {MANY} clients: share of the floor",
            "/s",
            many["floor"],
            many["ours"],
            Goal(0.95, at_most=False),
            peers={name: many[name] for name in others},
        ),
    ]
