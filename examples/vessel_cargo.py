"""The data of the vessel: what forty refrigerated containers do on a long voyage, by seed.

Made a day at a time with numpy, each day from a seed of its own: whoever asks for a day again gets
the same numbers, so that what came ashore can be held against everything that there was.

A minute of a container is four means: temperature in °C, vibration of the compressor in mm/s, power
in kW, humidity in %. They follow the time of day and a defrost every eight hours. Two things go
wrong: compressors fail for an hour or so, and from some day on the temperature sensors of most
containers creep, which nobody on board would notice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONTAINERS = 40
MINUTES = 1440  # of a day
FEATURES = ("temperature", "vibration", "power", "humidity")
CLASSES = ("normal", "compressor", "defrost", "sensor")

DEPARTURE = 1_767_225_600  # 2026-01-01T00:00Z, in seconds since 1970
CREEPING = 26  # containers whose sensor creeps …
CREEP_AFTER = 0.6  # … from this share of the voyage on …
CREEP_C = 1.5  # … to so many degrees at its end
FAULTS_A_DAY = 3.4
VIBRATION_FAULT = 6.0  # mm/s; sound compressors stay below 4
_SLOT = 240  # minutes; a container has one fault in it at most
_DEFROST_EVERY, _DEFROST_FOR = 480, 20  # minutes
_MISSING = 0.001  # share of humidity that never arrives
_BEFORE = 7  # days before the departure, on which the model was made

Array = NDArray[np.float32]


class Fault(NamedTuple):
    """A compressor that fails: minutes since the departure, the last one not included."""

    container: int
    start: int
    end: int


class Day(NamedTuple):
    """A day of all containers.

    Attributes:
        number: since the departure.
        features: ``float32[1440, 40, 4]``, NaN where one is missing.
        scores: what the model answers, ``float32[1440, 40, 4]``, one a class; they sum to 1.
        latency_us: how long it took, ``float64[1440, 40]``.
    """

    number: int
    features: Array
    scores: Array
    latency_us: NDArray[np.float64]


class Cargo:
    """The containers of one voyage.

    Args:
        days: length of the voyage.
        seed: another one is another voyage.
    """

    def __init__(self, days: int, *, seed: int = 8) -> None:
        self.days = days
        self._seed = seed
        random = np.random.default_rng([seed, 0])
        self._offset = random.normal(0.0, 0.35, CONTAINERS)
        self._phase = random.integers(0, _DEFROST_EVERY, CONTAINERS)
        self._creeping = random.permutation(CONTAINERS) < CREEPING
        self.faults = _faults(days, random)

    def day(self, number: int) -> Day:
        """A day of the voyage; below 0: one before it."""
        random = np.random.default_rng([self._seed, 1, number + _BEFORE])
        minute = np.arange(MINUTES)[:, None]
        noise = random.normal(0.0, 1.0, (MINUTES, CONTAINERS, 5)).astype(np.float32)
        sun = np.sin(2 * np.pi * (minute / MINUTES - 0.3))
        defrost = (minute + self._phase) % _DEFROST_EVERY < _DEFROST_FOR
        fault = self._failing(number)
        features = np.stack(
            [
                -18 + self._offset + 0.3 * sun + 1.6 * defrost + 0.25 * noise[..., 0],
                (2.1 + 0.2 * sun) * np.exp(0.08 * noise[..., 1]) + VIBRATION_FAULT * fault,
                3.4 + 0.5 * sun + 1.4 * defrost + 0.8 * fault + 0.22 * noise[..., 2],
                88 + 3 * sun - 6 * defrost + 1.3 * noise[..., 3],
            ],
            axis=-1,
        ).astype(np.float32)
        features[..., 0] += self._creep(number).astype(np.float32)
        features[..., 3][random.random((MINUTES, CONTAINERS)) < _MISSING] = np.nan
        scores = _answers(features, noise[..., 4])
        return Day(number, features, scores, random.gamma(9.0, 22.0, (MINUTES, CONTAINERS)))

    def calibration(self) -> Day:
        """The week before the departure in one: what the model's reference was made from.

        Its arrays are seven times as long as of other days.
        """
        week = [self.day(number) for number in range(-_BEFORE, 0)]
        return Day(
            -_BEFORE,
            np.concatenate([day.features for day in week]),
            np.concatenate([day.scores for day in week]),
            np.concatenate([day.latency_us for day in week]),
        )

    def seconds(self, number: int, hour: int) -> Array:
        """An hour of a day at 1 Hz, ``float32[3600, 40, 4]``, NaN where one is missing."""
        random = np.random.default_rng([self._seed, 2, number, hour])
        minutes = self.day(number).features[60 * hour : 60 * hour + 60]
        noise = random.normal(0.0, 0.05, (3600, CONTAINERS, len(FEATURES)))
        seconds: Array = (np.repeat(minutes, 60, axis=0) + noise).astype(np.float32)
        seconds[random.random(seconds.shape) < _MISSING] = np.nan
        return seconds

    def _creep(self, number: int) -> NDArray[Any]:
        """Degrees by which each sensor is off, ``float64[1440, 40]``."""
        onset = CREEP_AFTER * self.days
        elapsed = number + np.arange(MINUTES)[:, None] / MINUTES
        share = np.clip((elapsed - onset) / (self.days - onset), 0.0, 1.0)
        creep: NDArray[Any] = CREEP_C * share * self._creeping
        return creep

    def _failing(self, number: int) -> NDArray[np.bool_]:
        found = np.zeros((MINUTES, CONTAINERS), np.bool_)
        first = number * MINUTES
        for fault in self.faults:
            start, end = max(fault.start - first, 0), fault.end - first
            if end > 0 and start < MINUTES:
                found[start:end, fault.container] = True
        return found


def _faults(days: int, random: np.random.Generator) -> tuple[Fault, ...]:
    slots = days * MINUTES // _SLOT * CONTAINERS
    taken = random.choice(slots, round(FAULTS_A_DAY * days), replace=False)
    late = random.integers(10, 90, taken.size)
    length = random.integers(20, 90, taken.size)
    return tuple(
        sorted(
            Fault(int(slot % CONTAINERS), int(start), int(start + minutes))
            for slot, start, minutes in zip(
                taken, taken // CONTAINERS * _SLOT + late, length, strict=True
            )
        )
    )


def _answers(features: Array, noise: Array) -> Array:
    """Scores of a model that was taught what defrosts, worn compressors and bad sensors look like.

    Softmax over evidence that is linear in the features; see `CLASSES`.
    """
    temperature, vibration, power, _ = np.moveaxis(features, -1, 0)
    warm = temperature + 18
    evidence = np.stack(
        [
            4.5 + 0.7 * noise,
            2.2 * (vibration - 5.0),
            2.6 * (warm - 0.9) + 1.5 * (power - 4.0),
            2.4 * (warm - 1.1) - 1.5 * (power - 4.4),
        ],
        axis=-1,
    )
    evidence -= evidence.max(axis=-1, keepdims=True)
    shares = np.exp(evidence)
    scores: Array = (shares / shares.sum(axis=-1, keepdims=True)).astype(np.float32)
    return scores
