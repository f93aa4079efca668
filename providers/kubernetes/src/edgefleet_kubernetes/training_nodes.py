"""Whether any node could take a run, ever: refused before anything is sent where none could.

What is in use now doesn't count: a run waits for it. A cluster that makes nodes when they are asked
for isn't checked, by the setting ``training_autoscaled``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from edgefleet.errors import UnsupportedError
from edgefleet_kubernetes.job_request import INSTANCE
from edgefleet_kubernetes.reading import at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.interfaces.training import Resources
    from edgefleet_kubernetes.reading import Object

_AUTOSCALED = "; where nodes come by themselves, set `training_autoscaled = true` in the profile"


def check_nodes(nodes: Sequence[Object], wants: Resources, gpu: str) -> None:
    """Refuse what no node has.

    Args:
        nodes: that runs may use.
        wants: what a run needs a machine.
        gpu: resource that a GPU is asked for as.

    Raises:
        UnsupportedError: no node has it.
    """
    if wants.instance is not None:
        nodes = [node for node in nodes if _label(node) == wants.instance]
        if not nodes:
            raise UnsupportedError(
                f"no node is of machine type {wants.instance!r}",
                cure=f"name one by its label {INSTANCE}, or leave `instance` out{_AUTOSCALED}",
            )
    if wants.gpus:
        nodes = [node for node in nodes if _amount(node, gpu) >= wants.gpus]
        if not nodes:
            raise UnsupportedError(
                f"no node has {wants.gpus} {gpu}",
                cure=f"ask for fewer, or see that the device plugin runs{_AUTOSCALED}",
            )
    if wants.memory_gib is not None:
        least = wants.memory_gib * 2**30
        nodes = [node for node in nodes if _amount(node, "memory") >= least]
        if not nodes:
            raise UnsupportedError(
                f"no node has {wants.memory_gib:g} GiB of memory", cure=f"ask for less{_AUTOSCALED}"
            )


def _label(node: Object) -> str | None:
    found = at(node, "metadata", "labels", INSTANCE)
    return None if found is None else str(found)


def _amount(node: Object, resource: str) -> Decimal:
    from lightkube.utils.quantity import parse_quantity  # noqa: PLC0415 - with the client

    return parse_quantity(str(at(node, "status", "allocatable", resource) or "0")) or Decimal(0)
