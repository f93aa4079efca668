"""An ensemble as a model: what serves models serves it, with the same lanes, counters and leases.

Rules kept here:

- An ensemble is bound to its members when it is made and holds a lease on each until it is closed.
  So a request runs with the members that its ensemble was made with, whatever is swapped, unloaded
  or closed meanwhile; a member that leaves the table stays open until the ensemble's last request.
- Who replaces a member binds the ensemble anew and swaps both at once (`binding`).
- Members count the runs that ensembles ask of them, as Triton's composing models do.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from edgefleet.errors import EdgeFleetError, InferenceError, InvalidModelError
from edgefleet.protocol.bundle import TensorSpec
from edgefleet_runtime.engines.base import LoadedModel
from edgefleet_runtime.ensemble.declare import ModelStep, name_of, nodes_of
from edgefleet_runtime.ensemble.graph import Graph, Member

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.protocol.steps import Operation
    from edgefleet_runtime.ensemble.declare import Ensemble
    from edgefleet_runtime.ensemble.graph import Run
    from edgefleet_runtime.serve.table import ServedModel

PLATFORM = "ensemble"
"""Triton's name for the platform."""
LATEST = -1
"""What Triton calls the version of a member of which any will do."""


class EnsembleModel(LoadedModel):
    """An ensemble whose members are loaded; `infer` may be called from several threads.

    Args:
        declared: the graph.
        models: served models by name; must have all that it needs.

    Raises:
        InvalidModelError: a member is missing or served in another version, or the graph doesn't
            fit together; the message names the step.
        LimitExceededError: it has too many steps.
    """

    engine = PLATFORM
    platform = PLATFORM

    def __init__(self, declared: Ensemble, models: Mapping[str, ServedModel]) -> None:
        self.declared = declared
        nodes = nodes_of(declared)
        members: dict[str, ServedModel] = {}
        works: list[Operation | Member] = []
        for node, step in zip(nodes, declared.steps, strict=True):
            if not isinstance(step, ModelStep):
                works.append(step)
                continue
            served = members[step.model] = _member(step, node.label, models)
            works.append(Member(served.model.interface, _counted(served), served.model.probe))
        self._graph = Graph(
            nodes,
            works,
            inputs=[
                (name_of(tensor), name_of(tensor), _spec(tensor)) for tensor in declared.inputs
            ],
            outputs=[
                (name_of(tensor), name_of(tensor), _spec(tensor)) for tensor in declared.outputs
            ],
        )
        self.interface = self._graph.interface
        self.members = members
        inside = [served.model for served in members.values()]
        self.providers = tuple(dict.fromkeys(p for model in inside for p in model.providers))
        placed: Counter[str] = Counter()
        for model in inside:
            placed.update(model.nodes)
        self.nodes = dict(placed)
        self.configuration = _configuration(declared)
        self._leased: list[ServedModel] | None = []
        try:
            for served in members.values():
                served.acquire()
                self._leased.append(served)
        except EdgeFleetError:
            self.close()
            raise

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        if self._leased is None:
            raise InferenceError("the ensemble is closed")
        return self._graph.run(inputs, outputs)

    def probe(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        return self._graph.run(inputs, outputs, probe=True)

    def close(self) -> None:
        leased, self._leased = self._leased, None
        for served in leased or ():
            served.release()


def _member(step: ModelStep, label: str, models: Mapping[str, ServedModel]) -> ServedModel:
    served = models.get(step.model)
    if served is None:
        raise InvalidModelError(
            f"{label}: there is no such model here", cure=f"load {step.model!r} first"
        )
    if step.version and step.version != served.version:
        raise InvalidModelError(
            f"{label} needs version {step.version}, served is {served.version}",
            cure="load that version, or leave the version open",
        )
    return served


def _spec(tensor: TensorSpec | str) -> TensorSpec | None:
    return tensor if isinstance(tensor, TensorSpec) else None


def _counted(served: ServedModel) -> Run:
    """Runs a member as a request to it would, counted and seen by who watches it."""
    requests = served.requests

    def run(
        inputs: Mapping[str, NDArray[Any]], wanted: Sequence[str] | None
    ) -> dict[str, NDArray[Any]]:
        try:
            outputs, run_us = served.infer(inputs, wanted)
        except Exception:
            requests.failed()
            raise
        requests.answered(1, run_us, 0.0, 0.0, run_us)
        return outputs

    return run


def _configuration(declared: Ensemble) -> dict[str, Any]:
    """As Triton's clients read it. It names models only, so built-in steps have no place there."""
    return {
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": step.model,
                    "model_version": int(step.version) if step.version.isdigit() else LATEST,
                    "input_map": dict(step.inputs),
                    "output_map": dict(step.outputs),
                }
                for step in declared.steps
                if isinstance(step, ModelStep)
            ]
        }
    }
