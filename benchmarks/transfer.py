"""Pushing and pulling a bundle against `sha256sum` and `cp` of the same file, and the memory taken.

Each round measures all in turn, in processes of their own, so that the ratios hold where the
machine's speed drifts. Goals: at least 0.7 of the raw tools' speed; peak memory that doesn't grow
with the model.

    python benchmarks/transfer.py [--mib 512] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import edgefleet as ef

    Act = Callable[[], object]

CHUNK = 1 << 20


def make_model(folder: Path, mib: int) -> Path:
    """An ONNX model whose weights lie in one external file of that many MiB, of random bytes."""
    import onnx
    from onnx import TensorProto, helper

    rows = mib * CHUNK // 4096
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1024, rows])
    weights.data_location = TensorProto.EXTERNAL
    length = rows * 4096
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", str(length))):
        weights.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1024])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, rows])],
        [weights],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with (folder / "w.bin").open("wb") as stream:
        block = os.urandom(CHUNK)
        for number in range(length // CHUNK):
            stream.write(number.to_bytes(8, "big") + block[8:])
    onnx.checker.check_model(str(folder / "model.onnx"))
    return folder / "model.onnx"


def child(code: str, *args: str) -> dict[str, float]:
    """Run code in a process of its own; it prints its seconds and peak memory."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", code, *args],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_child(code: str, args: list[str]) -> None:
    """What a child does: prepare, time one act, print."""
    act = {"pack": pack, "push": push, "pull": pull}[code](*map(Path, args))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    act()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "grown_mib": (peak - before) / 1024}))


def pack(model: Path, bundle: Path) -> Act:
    """Making a bundle of an ONNX file."""
    from edgefleet.optimization.packaging import bundle_from_onnx

    return lambda: bundle_from_onnx(model, bundle, name="big")


def push(bundle: Path, root: Path) -> Act:
    """Pushing a bundle into a registry on the same disk."""
    fleet = connected(root)
    return lambda: fleet.push(bundle, "big", progress=False)


def pull(root: Path, to: Path) -> Act:
    """Pulling it out again."""
    fleet = connected(root)
    return lambda: fleet.registry.pull("big", to)


def connected(root: Path) -> ef.Fleet:
    """A fleet whose registry lies under a folder."""
    from edgefleet.fleet import connect

    config = root / "edgefleet.toml"
    if not config.exists():
        root.mkdir(parents=True)
        config.write_text('[profiles.default]\nprovider = "local"\n')
    fleet = connect("default", config=config)
    fleet.registry  # noqa: B018 - built before the clock starts
    return fleet


def raw(source: Path, target: Path) -> float:
    """Seconds of `sha256sum FILE && cp FILE TARGET`."""
    start = time.perf_counter()
    subprocess.run(
        [shutil.which("sha256sum") or "sha256sum", source], check=True, capture_output=True
    )
    subprocess.run([shutil.which("cp") or "cp", source, target], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        in_child(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ratios: dict[str, list[float]] = {"pack": [], "push": [], "pull": []}
    grown: dict[str, float] = dict.fromkeys(ratios, 0.0)
    with tempfile.TemporaryDirectory(prefix="edgefleet-bench-") as name:
        place = Path(name)
        model = make_model(place, options.mib)
        for _ in range(options.rounds):
            acts = {
                "pack": (model, place / "bundle"),
                "push": (place / "bundle", place / "fleet"),
                "pull": (place / "fleet", place / "pulled"),
            }
            for act, paths in acts.items():
                limit = raw(place / "w.bin", place / "copy")
                (place / "copy").unlink()
                seen = child(act, *map(str, paths))
                ratios[act].append(limit / seen["seconds"])
                grown[act] = max(grown[act], seen["grown_mib"])
            for made in ("bundle", "fleet", "pulled"):
                shutil.rmtree(place / made)
    print(f"{options.mib} MiB model, share of the speed of sha256sum + cp (goal: 0.7 or more)")
    for act, shares in ratios.items():
        print(
            f"  {act:5} median {statistics.median(shares):.2f}"
            f"  (min {min(shares):.2f}, max {max(shares):.2f}),"
            f" peak memory grew by {grown[act]:.0f} MiB"
        )


if __name__ == "__main__":
    main()
