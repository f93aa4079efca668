"""Machine types that a run's resources are held against.

Figures as in https://aws.amazon.com/sagemaker/ai/pricing/ ("training"). A type that isn't here can
be asked for by name, but not together with figures that can't be checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgefleet.interfaces.training import Resources
    from edgefleet_aws.settings import AwsSettings


class _Machine(NamedTuple):
    gpus: int
    memory_gib: float


_KNOWN = {
    "ml.m5.large": _Machine(0, 8),
    "ml.m5.xlarge": _Machine(0, 16),
    "ml.m5.2xlarge": _Machine(0, 32),
    "ml.m5.4xlarge": _Machine(0, 64),
    "ml.m5.12xlarge": _Machine(0, 192),
    "ml.m5.24xlarge": _Machine(0, 384),
    "ml.g5.xlarge": _Machine(1, 16),
    "ml.g5.2xlarge": _Machine(1, 32),
    "ml.g5.4xlarge": _Machine(1, 64),
    "ml.g5.12xlarge": _Machine(4, 192),
    "ml.g5.24xlarge": _Machine(4, 384),
    "ml.g5.48xlarge": _Machine(8, 768),
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
    if wants.count > settings.max_machines:
        raise UnsupportedError(
            f"{wants.count} machines were asked for, {settings.max_machines} are allowed",
            cure="ask for fewer, or raise `max_machines` in the profile",
        )
    if wants.instance is not None:
        return _named(wants.instance, wants, offered)
    if wants.gpus == 0 and wants.memory_gib is None:
        return _named(settings.training_instance, wants, offered)
    for name, machine in _KNOWN.items():
        if machine.gpus == wants.gpus and _fits(machine, wants):
            return name
    raise UnsupportedError(
        f"no machine type here has {wants.gpus} GPUs and {wants.memory_gib or 0:g} GiB of memory",
        cure="name one with `instance`; GPUs a machine are 0, 1, 4 or 8 otherwise",
    )


def _named(name: str, wants: Resources, offered: Collection[str]) -> str:
    if name not in offered:
        raise UnsupportedError(
            f"SageMaker has no machine type {name!r}",
            cure="types are listed at https://aws.amazon.com/sagemaker/ai/pricing/",
        )
    machine = _KNOWN.get(name)
    if machine is None and (wants.gpus or wants.memory_gib is not None):
        raise UnsupportedError(
            f"what {name} has isn't known here", cure="leave gpus and memory_gib out beside it"
        )
    if machine is not None and not _fits(machine, wants):
        raise UnsupportedError(
            f"{name} has {machine.gpus} GPUs and {machine.memory_gib:g} GiB of memory",
            cure="name a larger type, or ask for less",
        )
    return name


def _fits(machine: _Machine, wants: Resources) -> bool:
    return machine.gpus >= wants.gpus and machine.memory_gib >= (wants.memory_gib or 0)
