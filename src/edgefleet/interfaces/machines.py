"""Which of a vendor's machine types a run gets: the one named, or the smallest that has enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet.interfaces.training import Resources


class Machine(NamedTuple):
    """What a machine type has."""

    gpus: int
    memory_gib: float


class Machines(NamedTuple):
    """A vendor's machine types.

    Attributes:
        vendor: the service, for errors.
        known: types whose figures are known, the smallest first.
        offered: whether there is a type of a name.
        listed: where the types are listed.
        default: the type for a run that asks for nothing.
        most: machines that a run may have; the setting ``max_machines``.
    """

    vendor: str
    known: Mapping[str, Machine]
    offered: Callable[[str], bool]
    listed: str
    default: str
    most: int

    def choose(self, wants: Resources) -> str:
        """The machine type for a run.

        Raises:
            UnsupportedError: what it wants can't be given.
        """
        if wants.count > self.most:
            raise UnsupportedError(
                f"{wants.count} machines were asked for, {self.most} are allowed",
                cure="ask for fewer, or raise `max_machines` in the profile",
            )
        if wants.instance is not None:
            return self._named(wants.instance, wants)
        if wants.gpus == 0 and wants.memory_gib is None:
            return self._named(self.default, wants)
        for name, machine in self.known.items():
            if machine.gpus == wants.gpus and _fits(machine, wants):
                return name
        there = sorted({machine.gpus for machine in self.known.values()})
        raise UnsupportedError(
            f"no machine type here has {wants.gpus} GPUs and {wants.memory_gib or 0:g} GiB of "
            "memory",
            cure=f"name one with `instance`; GPUs a machine are one of {there} otherwise",
        )

    def _named(self, name: str, wants: Resources) -> str:
        if not self.offered(name):
            raise UnsupportedError(
                f"{self.vendor} has no machine type {name!r}",
                cure=f"types are listed at {self.listed}",
            )
        machine = self.known.get(name)
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


def _fits(machine: Machine, wants: Resources) -> bool:
    return machine.gpus >= wants.gpus and machine.memory_gib >= (wants.memory_gib or 0)
