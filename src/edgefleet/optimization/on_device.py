"""Candidates measured on a real device of a target, in place of this machine.

The device is reached through a `TrialDevice`, such as ``fleet.device(NAME)`` gives. What it finds
counts for targets of its own kind alone: a candidate that fails its self-test there is refused for
them, and speed there decides among those that pass.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from edgefleet.errors import InvalidInputError
from edgefleet.optimization.gate import is_slower
from edgefleet.optimization.packaging import add_artifact
from edgefleet.optimization.session import Latency
from edgefleet.optimization.shipping import tested
from edgefleet.protocol.layout import BundleWriter
from edgefleet.protocol.target import ANY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet.optimization.choice import Offer
    from edgefleet.optimization.samples import Samples
    from edgefleet.optimization.trials import Trial
    from edgefleet.protocol.layout import BundleLayout
    from edgefleet.protocol.orders import TrialAnswer, TrialFigures
    from edgefleet.protocol.target import HardwareTarget

log = logging.getLogger(__name__)


class TrialDevice(Protocol):
    """A device that measures the variants of a bundle; see `edgefleet.devices.Device.trial`."""

    @property
    def name(self) -> str:
        """Its name in the fleet."""

    @property
    def target(self) -> str:
        """The hardware target that the fleet knows it by; empty where it knows none."""

    def trial(self, bundle: BundleLayout, *, say: Callable[[str], object]) -> TrialAnswer:
        """Measure all variants of a bundle; ``say`` is told how far it is."""


@dataclass(frozen=True, slots=True)
class OnDevice:
    """What a device found.

    Attributes:
        device: its name.
        target: the hardware target that it says it is.
        figures: by candidate.
    """

    device: str
    target: str
    figures: Mapping[str, TrialFigures]

    def latency(self, candidate: str) -> Latency | None:
        """What a call of a candidate took there; None where it wasn't measured."""
        found = self.figures.get(candidate)
        if found is None or found.p50_us is None or found.p99_us is None:
            return None
        return Latency(found.p50_us / 1e6, found.p99_us / 1e6, found.calls)

    def offers(self, offers: Sequence[Offer]) -> list[Offer]:
        """The same offers as a device of that kind sees them, the model as given first."""
        base = self.latency(offers[0].name)
        return [self._offer(offer, base, given=offer is offers[0]) for offer in offers]

    def _offer(self, offer: Offer, base: Latency | None, *, given: bool) -> Offer:
        found, latency = self.figures.get(offer.name), self.latency(offer.name)
        refused = offer.refused
        failed = ("failed",) if given else ("failed", "skipped")
        if found is not None and found.outcome in failed:
            refused = refused or f"{found.outcome} on {self.device}: {found.reason}"
        slower = ""
        if latency is not None and base is not None and is_slower(latency, base):
            slower = f"slower on {self.device} than the model as given"
        p50_s = None if latency is None else latency.p50_s
        return replace(offer, refused=refused, slower=slower, p50_s=p50_s)


def check_device(device: TrialDevice, targets: Sequence[HardwareTarget]) -> None:
    """Refuse a device whose figures would count for no target asked for.

    Raises:
        InvalidInputError: it is a name, or the fleet knows it as something else.
    """
    if isinstance(device, str):
        raise InvalidInputError(
            f"device is the name {device!r}", cure=f"give device=fleet.device({device!r})"
        )
    names = [target.name for target in targets]
    if device.target and device.target not in names:
        raise InvalidInputError(
            f"device {device.name} is a {device.target}, which is not among the targets",
            cure=f"add {device.target!r} to targets, or name a device of {', '.join(names)}",
        )


def measure_on(
    device: TrialDevice,
    trials: Sequence[Trial],
    samples: Samples | None,
    folder: Path,
    *,
    model: str,
    seed: int,
    say: Callable[[str], object],
) -> OnDevice:
    """Have a device measure the candidates that passed, the model as given first.

    Args:
        device: measures.
        trials: the model as given first.
        samples: the caller's calibration data, of which self-test vectors are made.
        folder: doesn't exist yet; the candidates' bundle is written there.
        model: its name.
        seed: decides which samples become vectors.
        say: told how far it is.

    Raises:
        EdgeFleetError: as `edgefleet.devices.Device.trial`.
    """
    given = trials[0].artifact
    with BundleWriter(folder) as writer:
        for trial in trials:
            if trial.artifact is not None and given is not None and trial.passed:
                details = tested(trial.name, trial.artifact, given, samples, seed=seed)
                add_artifact(writer, trial.artifact, details, name=model, targets=())
        bundle = writer.finish()
    answer = device.trial(bundle, say=say)
    found = OnDevice(
        device=device.name,
        target=answer.target or ANY,
        figures={figures.variant: figures for figures in answer.figures},
    )
    log.info("%s measured %s on %s", model, ", ".join(found.figures), device.name)
    return found
