"""The last step of a pipeline: registers the trained model if the gate lets it. Run as a script.

It needs this distribution and onnx; the entry script installs what the image lacks.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from edgefleet import training
from edgefleet.interfaces.automation import Gate
from edgefleet.interfaces.training_entry import METRICS
from edgefleet.optimization.registering import register_trained
from edgefleet_azure.clients import Clients
from edgefleet_azure.registration import RUN_FILE, TRAINED_BY
from edgefleet_azure.registry import AzureMLRegistry
from edgefleet_azure.settings import AzureSettings


def main() -> None:
    """Compare the metric, and push what the training step left, or don't."""
    told = training.params()
    judged = Path(str(training.data_dir())) / METRICS
    gate = Gate.model_validate_json(told["gate"])
    value = json.loads(judged.read_text(encoding="utf-8")).get(gate.metric)
    if value is None:
        sys.exit(f"the evaluating script logged no metric {gate.metric!r}")
    if not gate.passes(value):
        sys.stdout.write(f"the gate held the model back: {gate.metric} is {value:g}\n")
        return
    run = (Path(os.environ[TRAINED_BY]) / RUN_FILE).read_text(encoding="utf-8")
    settings = AzureSettings(**json.loads(told["reach"]))
    registry = AzureMLRegistry(Clients(settings), settings)
    register_trained(registry, {**told, "metric": gate.metric, "run": run}, value=value)
    registry.close()


if __name__ == "__main__":
    main()
