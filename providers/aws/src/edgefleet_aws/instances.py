"""Machine types that a run's resources are held against.

Figures as in https://aws.amazon.com/sagemaker/ai/pricing/ ("training"). A type that isn't here can
be asked for by name, but not together with figures that can't be checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.machines import Machine, Machines

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgefleet.interfaces.training import Resources
    from edgefleet_aws.settings import AwsSettings


_KNOWN = {
    "ml.m5.large": Machine(0, 8),
    "ml.m5.xlarge": Machine(0, 16),
    "ml.m5.2xlarge": Machine(0, 32),
    "ml.m5.4xlarge": Machine(0, 64),
    "ml.m5.12xlarge": Machine(0, 192),
    "ml.m5.24xlarge": Machine(0, 384),
    "ml.g5.xlarge": Machine(1, 16),
    "ml.g5.2xlarge": Machine(1, 32),
    "ml.g5.4xlarge": Machine(1, 64),
    "ml.g5.12xlarge": Machine(4, 192),
    "ml.g5.24xlarge": Machine(4, 384),
    "ml.g5.48xlarge": Machine(8, 768),
}


def choose(wants: Resources, settings: AwsSettings, offered: Collection[str]) -> str:
    """The machine type for a run: the one that is named, or the smallest that has what is asked.

    Args:
        wants: what the run asks for.
        settings: the default type and the most machines.
        offered: types that SageMaker knows.

    Raises:
        UnsupportedError: it can't be given.
    """
    machines = Machines(
        vendor="SageMaker",
        known=_KNOWN,
        offered=offered.__contains__,
        listed="https://aws.amazon.com/sagemaker/ai/pricing/",
        default=settings.training_instance,
        most=settings.max_machines,
    )
    return machines.choose(wants)
