"""Reads ``ensemble_scheduling`` of a ``config.pbtxt``.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/architecture.md#ensemble-models
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import InvalidModelError
from edgefleet.protocol.bundle import TensorSpec
from edgefleet.protocol.typed import convert
from edgefleet_runtime.ensemble.declare import Ensemble, ModelStep
from edgefleet_runtime.ensemble.model import LATEST, PLATFORM

if TYPE_CHECKING:
    from collections.abc import Iterable

_ANY = -1
_EMPTY = 0


def read_ensemble(
    message: Any,  # noqa: ANN401 - a message made from tables
    datatypes: Iterable[tuple[tuple[str, str], ...]],
    *,
    name: str,
) -> Ensemble | None:
    """The ensemble that a parsed configuration describes; None where it describes a model.

    Args:
        message: the configuration.
        datatypes: names and datatypes of its inputs, and of its outputs.
        name: of the ensemble's folder.

    Raises:
        InvalidModelError: it describes half an ensemble.
    """
    scheduled = message.HasField("ensemble_scheduling")
    if not scheduled and message.platform != PLATFORM:
        return None
    if not scheduled or message.platform not in {"", PLATFORM} or message.backend:
        raise InvalidModelError(
            f"model {name!r}: its config.pbtxt is half an ensemble's",
            cure=f'write platform: "{PLATFORM}" and ensemble_scheduling, and no backend',
        )
    inputs, outputs = datatypes
    batched = message.max_batch_size > 0
    steps = enumerate(message.ensemble_scheduling.step, 1)
    try:
        return Ensemble(
            inputs=_specs(message.input, inputs, batched=batched),
            steps=tuple(_step(step, number, name) for number, step in steps),
            outputs=_specs(message.output, outputs, batched=batched),
        )
    except msgspec.ValidationError as error:
        raise InvalidModelError(f"model {name!r}: its config.pbtxt: {error}") from error


def _step(step: Any, number: int, name: str) -> ModelStep:  # noqa: ANN401 - as above
    where = f"model {name!r}: step {number} of its config.pbtxt"
    if not step.model_name:
        raise InvalidModelError(f"{where} names no model")
    # Triton's default of 0 is nobody's version; its documentation writes -1, some leave it out.
    if step.model_version < LATEST:
        raise InvalidModelError(f"{where} asks for version {step.model_version}")
    version = "" if step.model_version in {LATEST, _EMPTY} else str(step.model_version)
    if not step.output_map:
        raise InvalidModelError(f"{where} has an empty output_map")
    return ModelStep(
        model=step.model_name,
        version=version,
        inputs=dict(step.input_map),
        outputs=dict(step.output_map),
    )


def _specs(
    described: Iterable[Any], datatypes: tuple[tuple[str, str], ...], *, batched: bool
) -> tuple[TensorSpec, ...]:
    """Tensors with whole shapes: dims leave the batch out where ``max_batch_size`` is set."""
    return tuple(
        convert(
            {
                "name": name,
                "datatype": datatype,
                "shape": [*([_ANY] if batched else []), *tensor.dims],
            },
            TensorSpec,
        )
        for tensor, (name, datatype) in zip(described, datatypes, strict=True)
    )
