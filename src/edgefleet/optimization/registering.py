"""The last step of train, evaluate and register: what a training run left becomes a version.

Run by a vendor's service, in a container: the environment is that of any training script.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet import training
from edgefleet.interfaces.automation import VERSION_FILE, told_of_version
from edgefleet.interfaces.training_run import model_in
from edgefleet.optimization.packaging import bundle_from_onnx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.interfaces.registry import Registry


def register_trained(registry: Registry, told: Mapping[str, Any], *, value: float) -> None:
    """Push the trained model as a version, and tell which in the outputs.

    Args:
        registry: to push to.
        told: ``model`` and ``metric`` by name, ``run`` that trained it, ``lineage`` as JSON.
        value: of the metric.
    """
    with tempfile.TemporaryDirectory(prefix="edgefleet-register-") as scratch:
        bundle = bundle_from_onnx(
            model_in(training.model_dir(), of=f"run {told['run']}"),
            Path(scratch) / "bundle",
            name=told["model"],
            metrics={told["metric"]: value},
            lineage={**json.loads(told["lineage"]), "run": told["run"]},
        )
        registered = registry.push(bundle, told["model"])
    told_of = told_of_version(registered)
    (training.output_dir() / VERSION_FILE).write_text(told_of, encoding="utf-8")
    sys.stdout.write(f"registered {registered.reference}\n")
