"""What a child process sees of a CPU that this one passes for, and what `optimize` does there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.optimization.processors import (
    AS_IT_IS,
    AVX2,
    DUE,
    LARGEST_OF_7,
    LONG,
    SSE,
    NotHereError,
    Processor,
    built,
    c_compiler,
    environment,
)

ROOT = Path(__file__).parents[2]
SUM = "from benchmarks.optimization.processors import saturated_sum; print(saturated_sum())"
CRASH = "import ctypes; ctypes.string_at(0)"
FLAGS = """
#include <stdio.h>
int main(void)
{
    __builtin_cpu_init();
    printf("%d%d%d", !!__builtin_cpu_supports("avx2"), !!__builtin_cpu_supports("avx512f"),
           !!__builtin_cpu_supports("avx512vnni"));
    return 0;
}
"""
# The choice is made by times, which the child tells: no clock is asserted, only what follows.
DECIDE = """
import json, sys
from pathlib import Path
import numpy as np
from benchmarks.serving.models import mlp
from edgefleet.optimization import optimize
subject = mlp(Path(sys.argv[1]))
samples = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)
bundle = optimize(
    subject.path, targets=["x86-cpu"], calibration=samples, candidates=["int8"], progress=False,
    evaluate=lambda predict: float(np.isfinite(predict(samples)).mean()),
)
print(json.dumps(bundle.report.to_dict()))
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return built(tmp_path_factory.mktemp("without-vnni"))
    except NotHereError as reason:
        pytest.skip(str(reason))


def run(code: str, processor: Processor, library: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(processor, library),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("processor,expected", [(AVX2, "100"), (SSE, "000")])
def test_programs_that_ask_see_another_processor(
    processor: Processor, expected: str, library: Path, tmp_path: Path
) -> None:
    (tmp_path / "flags.c").write_text(FLAGS)
    program = tmp_path / "flags"
    subprocess.run([c_compiler(), "-o", program, tmp_path / "flags.c"], check=True)
    bare = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    if bare[0] == "0":
        pytest.skip("this CPU has no AVX2 to begin with")
    seen = subprocess.run(
        [program], env=environment(processor, library), capture_output=True, text=True, check=True
    )
    assert seen.stdout == expected


def test_onnxruntime_takes_the_kernels_of_the_processor_that_it_sees(library: Path) -> None:
    # AVX2 without VNNI adds pairs of products in 16 bits, and theirs overflow.
    assert int(run(SUM, AVX2, library)) < DUE
    assert int(run(SUM, SSE, library)) == DUE


@pytest.mark.parametrize("processor", [AS_IT_IS, AVX2, SSE], ids=lambda p: p.name)
def test_weights_of_7_bits_overflow_on_none(processor: Processor, library: Path) -> None:
    code = SUM.replace("saturated_sum()", f"saturated_sum({LARGEST_OF_7})")
    assert int(run(code, processor, library)) == LONG * 255 * LARGEST_OF_7


def test_threads_see_the_same_processor(library: Path) -> None:
    code = f"import threading; t = threading.Thread(target=exec, args=({SUM!r},)); t.start()"
    assert int(run(code, AVX2, library)) < DUE


def test_other_faults_end_the_program_as_they_should(library: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler=0", "-c", CRASH],
        env=environment(AVX2, library),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -11


@pytest.mark.parametrize("processor", [AS_IT_IS, AVX2, SSE], ids=lambda p: p.name)
def test_optimize_chooses_by_what_it_measures_on_each_processor(
    processor: Processor, library: Path, tmp_path: Path
) -> None:
    report = json.loads(run(DECIDE, processor, library, str(tmp_path)))
    given, int8 = report["rows"]
    slower = "slower here" in int8["why"]
    clearly = int8["p50_ms"] > given["p50_ms"] * 1.1 and int8["p50_ms"] > given["p50_ms"] + 0.1
    assert slower == clearly
    assert report["targets"][0]["variant"] == ("fp32" if slower else "int8")
