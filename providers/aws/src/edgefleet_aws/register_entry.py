"""The last step of a pipeline: registers the trained model. Run as a script, in a container.

It needs this distribution and onnx; the entry script installs what the image lacks.
"""

from __future__ import annotations

import json

from edgefleet import training
from edgefleet.optimization.registering import register_trained
from edgefleet_aws.clients import Clients
from edgefleet_aws.registry import SageMakerRegistry
from edgefleet_aws.settings import AwsSettings


def main() -> None:
    """Push what the training step left as a version, and tell which in the outputs."""
    told = training.params()
    settings = AwsSettings(**json.loads(told["reach"]))
    registry = SageMakerRegistry(Clients(settings), settings)
    register_trained(registry, told, value=float(told["value"]))
    registry.close()


if __name__ == "__main__":
    main()
