"""The last step of a pipeline: registers the trained model. Run as a script, in a container.

It needs this distribution and onnx; the entry script installs what the image lacks.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from edgefleet import training
from edgefleet.interfaces.training_run import model_in
from edgefleet.optimization.packaging import bundle_from_onnx
from edgefleet_aws.clients import Clients
from edgefleet_aws.registration import VERSION_FILE
from edgefleet_aws.registry import SageMakerRegistry
from edgefleet_aws.settings import AwsSettings


def main() -> None:
    """Push what the training step left as a version, and tell which in the outputs."""
    told = training.params()
    settings = AwsSettings(**json.loads(told["reach"]))
    registry = SageMakerRegistry(Clients(settings), settings)
    with tempfile.TemporaryDirectory(prefix="edgefleet-register-") as scratch:
        bundle = bundle_from_onnx(
            model_in(training.model_dir(), of=f"run {told['run']}"),
            Path(scratch) / "bundle",
            name=told["model"],
            metrics={told["metric"]: float(told["value"])},
            lineage={**json.loads(told["lineage"]), "run": told["run"]},
        )
        registered = registry.push(bundle, told["model"])
    registry.close()
    say = {"reference": registered.reference, "digest": registered.digest}
    (training.output_dir() / VERSION_FILE).write_text(json.dumps(say), encoding="utf-8")
    sys.stdout.write(f"registered {registered.reference}\n")


if __name__ == "__main__":
    main()
