"""How a rollout goes: its rate, when it stops, what a device does that fails. Pure.

A policy is the operator's; a channel says by `PolicyLimits` what it can hold a rollout to. What it
can't is refused before anything is sent, never left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from edgefleet.interfaces.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

OnFailure = Literal["keep", "roll-back"]
Counting = Literal["notified", "succeeded"]


class Faster(Value):
    """A rate that grows on the way.

    Attributes:
        by: the rate is multiplied by this, each time.
        after: each time that so many more devices count.
        counting: which devices count: those that were told, or those that succeeded.
    """

    by: float = Field(gt=1)
    after: int = Field(ge=1)
    counting: Counting = "notified"


class StopAfter(Value):
    """When a rollout reaches no further device.

    Attributes:
        failed_percent: so much of a hundred devices that are done failed.
        devices: it isn't judged before so many devices are done.
    """

    failed_percent: float = Field(gt=0, le=100)
    devices: int = Field(ge=1)


class RolloutPolicy(Value):
    """How a pointer reaches a group's devices. What is None is left to the channel.

    The channel counts what its own agent says of a delivery. What the runtime makes of a release is
    told by its report: try it on a cohort first where that is what to judge by.

    Attributes:
        per_minute: devices that are told a minute, at first.
        faster: how that rate grows.
        stop_after: when no further device is told.
        on_failure: what the agent of a device does where a delivery fails: ``keep`` what could be
            applied, or ``roll-back`` all of it, which takes back what others deliver along with it.
        timeout_s: a device that has begun and isn't done after so many seconds counts as failed.
    """

    per_minute: int | None = Field(default=None, ge=1)
    faster: Faster | None = None
    stop_after: StopAfter | None = None
    on_failure: OnFailure | None = None
    timeout_s: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _grows_from_a_rate(self) -> Self:
        if self.faster is not None and self.per_minute is None:
            msg = "a rate that grows needs the rate to start from: give per_minute"
            raise ValueError(msg)
        return self

    def __str__(self) -> str:
        return ", ".join(self._words()) or "as the channel does it"

    def _words(self) -> Iterator[str]:
        if self.per_minute is not None:
            yield f"{self.per_minute} devices a minute"
        if self.faster is not None:
            grows = self.faster
            yield f"{grows.by:g} times as many after each {grows.after} {grows.counting}"
        if self.stop_after is not None:
            stop = self.stop_after
            yield f"stops when {stop.failed_percent:g} % of at least {stop.devices} failed"
        if self.on_failure is not None:
            does = "keeps" if self.on_failure == "keep" else "rolls back"
            yield f"a device that fails {does} what it was given"
        if self.timeout_s is not None:
            yield f"a device has {self.timeout_s} s"


class PolicyLimits(Value):
    """What of a policy a channel honours. None and empty: nothing of that kind.

    Attributes:
        per_minute: lowest and highest rate.
        faster_by: lowest and highest factor.
        faster_decimals: digits of a factor after its point.
        counting: what a growing rate can go by.
        stop_after: whether it can stop.
        on_failure: what devices can do.
        timeout_s: shortest and longest time.
        timeout_step_s: times are whole multiples of it.
    """

    per_minute: tuple[int, int] | None = None
    faster_by: tuple[float, float] | None = None
    faster_decimals: int = 1
    counting: tuple[Counting, ...] = ()
    stop_after: bool = False
    on_failure: tuple[OnFailure, ...] = ()
    timeout_s: tuple[int, int] | None = None
    timeout_step_s: int = 1


class RolloutProgress(Value):
    """How far the channel is with a group's newest pointer, by the words of its own agents.

    Evidence, not attestation: "succeeded" means that the pointer was delivered.

    Attributes:
        state: ``open`` while devices are told, those that join later too; ``stopped`` when no
            further device is told.
        why: what stopped it.
        devices: how many are in which state of the channel's, as far as it counts them.
    """

    state: Literal["open", "stopped"]
    why: str = ""
    devices: dict[str, int] = Field(default_factory=dict)

    @property
    def deserves_a_look(self) -> bool:
        """Whether it stopped, or devices didn't take what they were given."""
        lost = sum(self.devices.get(state, 0) for state in ("failed", "rejected", "timed out"))
        return self.state == "stopped" or lost > 0

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.devices.items() if count)
        told = f"rollout {self.state}" + (f": {self.why}" if self.why else "")
        return f"{told} ({counts})" if counts else told


def problems_of(policy: RolloutPolicy, limits: PolicyLimits) -> tuple[str, ...]:
    """What of a policy a channel can't honour; nothing where it can all of it."""
    return tuple(_problems(policy, limits))


def _problems(policy: RolloutPolicy, limits: PolicyLimits) -> Iterator[str]:
    if policy.per_minute is not None:
        yield from _outside("per_minute", policy.per_minute, limits.per_minute)
    if policy.faster is not None:
        yield from _outside("faster.by", policy.faster.by, limits.faster_by)
        if limits.faster_by and round(policy.faster.by, limits.faster_decimals) != policy.faster.by:
            yield f"faster.by takes {limits.faster_decimals} digits after the point"
        if limits.faster_by and policy.faster.counting not in limits.counting:
            yield f"faster.counting can't be {policy.faster.counting!r} here"
    if policy.stop_after is not None and not limits.stop_after:
        yield "stop_after can't be honoured here"
    if policy.on_failure is not None and policy.on_failure not in limits.on_failure:
        yield f"on_failure can't be {policy.on_failure!r} here"
    if policy.timeout_s is not None:
        yield from _outside("timeout_s", policy.timeout_s, limits.timeout_s)
        if limits.timeout_s and policy.timeout_s % limits.timeout_step_s:
            yield f"timeout_s is a multiple of {limits.timeout_step_s} here"


def _outside(name: str, value: float, bounds: tuple[float, float] | None) -> Iterator[str]:
    if bounds is None:
        yield f"{name} can't be honoured here"
    elif not bounds[0] <= value <= bounds[1]:
        yield f"{name} is {bounds[0]:g} to {bounds[1]:g} here, not {value:g}"
