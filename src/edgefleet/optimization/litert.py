"""LiteRT files: what Coral's compiler and small boards take.

onnx2tf writes a float file. It wants exact versions of onnx, numpy and more, so it lives in an
environment of its own and is run as a command, which also keeps what it prints and what it breaks
out of this process. It may fail after it wrote the file that was asked for, so the file counts and
not how the command ended: whoever opens the file checks it, and the gate judges it. Inputs keep the
layout and names that the model has (``-kat``, ``-coion``), for callers know no other.

ai-edge-quantizer makes fp16 and int8 of that file; inputs and outputs stay floats.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.optimization.artifact import Artifact
from edgefleet.optimization.libraries import available, versions
from edgefleet.optimization.makers import MAX_REASON, NotMade, told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.optimization.makers import Say, Source
    from edgefleet.optimization.recipes import Recipe

log = logging.getLogger(__name__)

TOOL = "onnx2tf"
MISSING = "needs onnx2tf 2 (Python 3.12 or newer): pipx install onnx2tf"
ENTRY = "model.tflite"
TIMEOUT_S = 1800.0
MAX_CALLS = 32  # of up to as many samples each
QUANTIZER = "ai-edge-quantizer"
MISSING_QUANTIZER = f"needs {QUANTIZER}: pip install 'edgefleet[litert]'"
EVERYTHING = ".*"
THREADS = 1  # of the calibration: sums over several may round otherwise the next time


def make_tflite(recipe: Recipe, source: Source, to: Path, say: Say) -> Artifact:
    """The model in LiteRT's format; int8 is static, with ranges seen on the calibration samples.

    Raises:
        NotMade: a tool isn't installed, or can't convert the model.
    """
    tool = shutil.which(TOOL)
    if tool is None:
        raise NotMade(MISSING)
    if recipe.precision != "fp32" and not available("ai_edge_quantizer"):
        raise NotMade(MISSING_QUANTIZER)
    file = source.file
    work = to / "work"
    work.mkdir()
    names = [spec.name for spec in file.interface.inputs]
    say("converting")
    said = _run(
        tool,
        ["-i", str(file.path.resolve()), "-o", str(work), "-n", "-coion", "-kat", *names],
        work,
    )
    made = work / f"{file.path.stem}_float32.tflite"
    if not made.is_file():
        raise NotMade(f"onnx2tf failed: {said}"[:MAX_REASON])
    path = to / ENTRY
    if recipe.precision == "fp32":
        made.rename(path)
    else:
        say("quantizing")
        path.write_bytes(_quantized(made, recipe, source))
    shutil.rmtree(work)
    return Artifact(
        format=recipe.format,
        precision=recipe.precision,
        entry=ENTRY,
        files={ENTRY: path},
        size_bytes=path.stat().st_size,
        interface=file.interface,
        notes={"conversion": recipe.about, TOOL: _version(tool), **_tools(recipe)},
    )


def _tools(recipe: Recipe) -> dict[str, str]:
    return {} if recipe.precision == "fp32" else versions(QUANTIZER)


def _quantized(path: Path, recipe: Recipe, source: Source) -> bytes:
    """The file with weights of 16 bits, or with weights and activations of 8."""
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.recipe import AlgorithmName, TFLOperationName, static_wi8_ai8

    with contextlib.ExitStack() as quiet:
        quiet.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # of an option that calibrating needs
        quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))  # it prints sizes and times
        quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
        try:
            made = quantizer.Quantizer(str(path))
            if recipe.precision == "fp16":
                made.add_weight_only_config(
                    regex=EVERYTHING,
                    operation_name=TFLOperationName.ALL_SUPPORTED,
                    num_bits=16,
                    algorithm_key=AlgorithmName.FLOAT_CASTING,
                )
                return bytes(made.quantize().quantized_model)
            made.load_quantization_recipe(static_wi8_ai8())
            for kind in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
                made.update_quantization_recipe(
                    regex=EVERYTHING, operation_name=kind, algorithm_key=AlgorithmName.NO_QUANTIZE
                )
            return bytes(made.quantize(_ranges(made, path, source)).quantized_model)
        except NotMade:
            raise
        except Exception as error:  # the library raises anything, and others still ship
            log.info("%s of %s failed", recipe.name, path, exc_info=True)
            raise NotMade(told(QUANTIZER, error)) from error


def _ranges(made: Any, path: Path, source: Source) -> dict[str, Any]:  # noqa: ANN401 - no types
    """Smallest and largest value of each tensor over the samples, by its name.

    Each call is calibrated by itself: over several the library takes a moving average, which cuts
    off what is seldom.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    samples = source.samples
    if samples is None:
        raise NotMade("needs calibration data: give calibration=")
    (signature,) = Interpreter(model_path=str(path)).get_signature_list()
    found: dict[str, Any] = {}
    for feed in itertools.islice(samples.feeds(), MAX_CALLS):
        seen = made.calibrate({signature: [feed]}, num_threads=THREADS)
        for name, about in seen.items():
            known = found.setdefault(name, about)
            for bound, widest in (("min", np.minimum), ("max", np.maximum)):
                if bound in about:
                    known[bound] = widest(known[bound], about[bound])
    return found


def _run(tool: str, arguments: Sequence[str], work: Path) -> str:
    """Run the command; what it said last that names an error."""
    # It calls commands that are installed beside it.
    beside = f"{Path(tool).resolve().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    try:
        done = subprocess.run(
            [tool, *arguments],
            cwd=work,
            env={**os.environ, "PATH": beside},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotMade(f"onnx2tf did not end within {TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise NotMade(f"onnx2tf can't be run: {error}") from error
    text = done.stdout.decode(errors="replace")
    if done.returncode:
        log.info("onnx2tf ended with %d:\n%s", done.returncode, text[-20_000:])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":", 1)[0]]
    return (errors or lines or ["it said nothing"])[0]


def _version(tool: str) -> str:
    done = subprocess.run(
        [tool, "-V"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return (done.stdout.split() or ["unknown"])[-1]
