"""Other CPUs than this one, as far as programs ask: kernels that a CPU without VNNI would run.

``without_vnni.c`` answers CPUID for a child process. That onnxruntime is led by it shows in a sum:
its AVX2 kernel adds products of uint8 and int8 in 16 bits, which overflow; VNNI's adds in 32
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("without_vnni.c")
LONG = 64  # products in the sum
LARGEST = 127  # weight of 8 bits
LARGEST_OF_7 = 63
DUE = LONG * 255 * LARGEST


class Processor(NamedTuple):
    """A CPU that this one can pass for.

    Attributes:
        name: for tables.
        without: what `WITHOUT` hides; empty for nothing.
    """

    name: str
    without: str


AS_IT_IS = Processor("this CPU", "")
AVX2 = Processor("AVX2 without VNNI", "avx512")
SSE = Processor("SSE4.2 without AVX", "avx")
PROCESSORS = (AS_IT_IS, AVX2, SSE)


class NotHereError(Exception):
    """Why this machine can't pass for another."""


def built(folder: Path) -> Path:
    """The library that hides instructions, compiled into a folder.

    Raises:
        NotHereError: there is no C compiler, or nothing to make CPUID fault with.
    """
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        raise NotHereError("only Linux on x86-64 lets CPUID fault")
    if "cpuid_fault" not in Path("/proc/cpuinfo").read_text():
        raise NotHereError("this CPU, or its hypervisor, doesn't offer CPUID faulting")
    compiler = c_compiler()
    library = folder / "without_vnni.so"
    command = [
        compiler,
        "-O2",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(SOURCE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHereError(f"{compiler} failed: {done.stderr.strip()[:300]}")
    tried = subprocess.run(
        [sys.executable, "-S", "-c", ""],
        env=environment(AVX2, library),
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        raise NotHereError(tried.stderr.strip() or f"a child ended with {tried.returncode}")
    return library


def c_compiler() -> str:
    """Path of a C compiler.

    Raises:
        NotHereError: there is none.
    """
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        raise NotHereError("there is no C compiler: install gcc")
    return found


def environment(processor: Processor, library: Path | None) -> dict[str, str]:
    """The environment of a child that sees that processor."""
    found = dict(os.environ)
    if processor.without:
        assert library is not None
        found.pop("PYTHONFAULTHANDLER", None)  # it would take the signals that stand for CPUID
        found |= {"LD_PRELOAD": str(library), "WITHOUT": processor.without}
    return found


def saturated_sum(weight: int = LARGEST) -> int:
    """What onnxruntime makes of 64 products 255 x weight here: less than due where it overflows."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, LONG])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 16])],
        [numpy_helper.from_array(np.full((LONG, 16), weight, np.int8), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    return int(session.run(None, {"x": np.full((1, LONG), 255, np.uint8)})[0][0, 0])
