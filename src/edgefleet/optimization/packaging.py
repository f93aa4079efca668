"""An ONNX file as it is, in a bundle of one variant: what a bare ``.onnx`` file is pushed as."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidModelError
from edgefleet.optimization import self_test
from edgefleet.optimization.artifact import of_onnx
from edgefleet.optimization.classical_graph import is_classical
from edgefleet.optimization.libraries import available, require
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.samples import arrange
from edgefleet.protocol.bundle import Details
from edgefleet.protocol.layout import BundleWriter
from edgefleet.protocol.names import check_name
from edgefleet.protocol.steps import FEATURE, plain_steps

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.optimization.self_test import SelfTest
    from edgefleet.protocol.bundle import Descriptor
    from edgefleet.protocol.layout import BundleLayout
    from edgefleet.protocol.steps import Step

log = logging.getLogger(__name__)

CHOSEN_PRECISIONS = ("fp32", "fp16", "int8")
"""Precisions that targets ask for; `choose_variant` would never choose another."""


def bundle_from_onnx(
    path: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    name: str,
    self_test_inputs: object = None,
    labels: tuple[str, ...] = (),
    preprocessing: Sequence[Step] = (),
    postprocessing: Sequence[Step] = (),
    metrics: Mapping[str, float] | None = None,
    lineage: Mapping[str, str] | None = None,
    targets: tuple[str, ...] = (),
    precision: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> BundleLayout:
    """A new bundle in the folder ``to`` with the file, and its external data files, as one variant.

    External data is copied in chunks, never loaded, unless ``self_test_inputs`` ask for the model
    to be run. The same arguments give the same digest.

    Args:
        path: the ONNX file; external data files lie beside it and keep their relative paths.
        to: a folder that doesn't exist yet; it appears whole or not at all.
        name: the model's name.
        self_test_inputs: an array (one input) or a mapping of input name to array, samples along
            the first axis; their outputs are recorded for devices to repeat. Without them inputs
            are made up where onnxruntime is installed and the model is small enough and takes any;
            where they can't be, ``lineage["self_test"]`` of the bundle says why.
        labels: class names by index.
        preprocessing: steps that devices run before the model; the self-test doesn't, it is of the
            model proper. A device that doesn't know them refuses the bundle.
        postprocessing: steps after it, likewise.
        metrics: figures to carry along, such as ``accuracy``.
        lineage: where it came from, to carry along.
        targets: hardware targets it is meant for; empty for any.
        precision: what to call the variant; by default what most of its weights are.
        progress: called with the bytes of each chunk copied.

    Raises:
        InvalidModelError: the file is unfit; see `onnx_file.inspect`.
        InvalidInputError: ``to`` exists, the name is illegal, or the self-test inputs don't suit
            it.
        DocumentError: a step says what no reader would accept, or there are too many.
        MissingExtraError: onnx, or for self-test inputs onnxruntime, isn't installed.
        StorageFullError: no room; nothing is left behind.
    """
    check_name("model", name)
    file = inspect(path)
    chosen = precision or servable_precision(file)
    artifact = of_onnx(file, precision=chosen)
    test = _self_test(artifact, self_test_inputs)
    notes = dict(lineage or {})
    if test.note:
        log.info("%s: self-test vectors %s", file.path, test.note)
        notes["self_test"] = test.note
    with BundleWriter(Path(to)) as writer:
        details = Details(
            variant=chosen,
            entry=artifact.entry,
            interface=file.interface,
            labels=tuple(labels),
            preprocessing=plain_steps(preprocessing),
            postprocessing=plain_steps(postprocessing),
            requires=(FEATURE,) if preprocessing or postprocessing else (),
            self_test=test.vectors,
            tolerance=test.tolerance,
            metrics={key: float(value) for key, value in (metrics or {}).items()},
            lineage=notes,
        )
        add_artifact(
            writer, artifact, details, name=name, targets=tuple(targets), progress=progress
        )
        return writer.finish()


def add_artifact(
    writer: BundleWriter,
    artifact: Artifact,
    details: Details,
    *,
    name: str,
    targets: tuple[str, ...],
    progress: Callable[[int], object] | None = None,
) -> Descriptor:
    """Add a candidate's files as a variant; ``details.entry`` is the artifact's."""
    return writer.add_variant(
        details,
        artifact.files,
        model_name=name,
        model_format=artifact.format,
        precision=artifact.precision,
        targets=targets,
        opset=artifact.opset,
        progress=progress,
    )


def servable_precision(file: OnnxFile) -> str:
    """The file's precision, if any hardware target asks for it.

    A classical model with scalers in float64 runs wherever one in float32 does: on the CPU.

    Raises:
        InvalidModelError: none does.
    """
    if file.precision in CHOSEN_PRECISIONS:
        return file.precision
    if file.precision == "fp64" and is_classical(file.path):
        return "fp32"
    raise InvalidModelError(
        f"most weights of {file.path} are {file.precision}, which no hardware target asks for",
        cure="export it in float32, or pass precision='fp32' to ship it as it is",
    )


def _self_test(artifact: Artifact, inputs: object) -> SelfTest:
    if inputs is not None:
        require("numpy", "onnxruntime")
        samples = arrange(inputs, artifact.interface, what="self_test_inputs")
        return self_test.record(artifact, samples, seed=0)
    if not available("onnxruntime"):
        return self_test.skipped("onnxruntime is not installed where the bundle was made")
    return self_test.record_unasked(artifact)
