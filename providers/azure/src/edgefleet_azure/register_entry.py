"""The last step of a pipeline: registers the trained model if the gate lets it. Run as a script.

It needs this distribution and onnx; the entry script installs what the image lacks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgefleet import training
from edgefleet.interfaces.automation import Gate
from edgefleet.interfaces.training_entry import METRICS
from edgefleet.optimization.registering import register_trained
from edgefleet_azure.clients import Clients
from edgefleet_azure.registration import GATE_FILE
from edgefleet_azure.registry import AzureMLRegistry
from edgefleet_azure.settings import AzureSettings


def main() -> None:
    """Compare the metric, tell what the gate said, and push what the training step left."""
    told = training.params()
    judged = Path(str(training.data_dir())) / METRICS
    gate = Gate.model_validate_json(told["gate"])
    value = json.loads(judged.read_text(encoding="utf-8")).get(gate.metric)
    if value is None:
        sys.exit(f"the evaluating script logged no metric {gate.metric!r}")
    passed = gate.passes(value)
    said = {"passed": passed, "value": value}
    (training.output_dir() / GATE_FILE).write_text(json.dumps(said), encoding="utf-8")
    if not passed:
        sys.stdout.write(f"the gate held the model back: {gate.metric} is {value:g}\n")
        return
    settings = AzureSettings(**json.loads(told["reach"]))
    registry = AzureMLRegistry(Clients(settings), settings)
    register_trained(registry, {**told, "metric": gate.metric}, value=value)
    registry.close()


if __name__ == "__main__":
    main()
