"""Which ensembles need which models, and how they are bound to them, anew where one is replaced.

Pure, but for the leases that a bound ensemble holds: nothing here touches a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError, InvalidModelError
from edgefleet_runtime.ensemble.model import EnsembleModel
from edgefleet_runtime.serve.table import ServedModel

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from edgefleet_runtime.ensemble.declare import Ensemble


def bound(
    declared: Mapping[str, tuple[Ensemble, str]], models: Mapping[str, ServedModel]
) -> dict[str, ServedModel]:
    """These ensembles, ready to serve; one may have another as its member.

    Args:
        declared: each with its version, by the name to serve it under.
        models: the others that they may need.

    Raises:
        EdgeFleetError: as of `EnsembleModel`; the message names the ensemble. None is left bound.
        InvalidModelError: they need each other in a circle.
    """
    made: dict[str, ServedModel] = {}
    waiting = dict(declared)
    try:
        while waiting:
            ready = [n for n, (e, _) in waiting.items() if waiting.keys().isdisjoint(e.models)]
            if not ready:
                circle = ", ".join(map(repr, waiting))
                raise InvalidModelError(f"ensembles need each other in a circle: {circle}")
            for name in ready:
                ensemble, version = waiting.pop(name)
                made[name] = bind(name, ensemble, {**models, **made}, version=version)
    except EdgeFleetError:
        for served in made.values():
            served.retire()
        raise
    return made


def bind(
    name: str, ensemble: Ensemble, models: Mapping[str, ServedModel], *, version: str
) -> ServedModel:
    """One ensemble, ready to serve under that name.

    Raises:
        EdgeFleetError: as of `EnsembleModel`; the message names the ensemble.
    """
    try:
        model = EnsembleModel(ensemble, models)
    except EdgeFleetError as error:
        error.prefixed(f"ensemble {name!r}")
        raise
    return ServedModel(model, name=name, version=version, bundle="", variant="")


def replaced(
    models: Mapping[str, ServedModel], fresh: Mapping[str, ServedModel]
) -> dict[str, ServedModel]:
    """All models with some of them replaced, and the ensembles that need those bound anew.

    Args:
        models: those that serve now; they are left as they are.
        fresh: those to put in their places, or beside them.

    Raises:
        EdgeFleetError: an ensemble can't be bound to a fresh member, or they would need each other
            in a circle; nothing is left bound to it.
    """
    all_models = {**models, **fresh}
    for name in fresh:
        if name in (circle := needing(all_models, {name})):
            names = ", ".join(map(repr, sorted(circle)))
            raise InvalidModelError(f"ensembles need each other in a circle: {names}")
    dependent = needing(all_models, fresh)
    anew = {
        name: (ensemble.declared, served.version)
        for name, served in all_models.items()
        if name in dependent - fresh.keys() and (ensemble := ensemble_of(served)) is not None
    }
    return {**all_models, **bound(anew, {n: m for n, m in all_models.items() if n not in anew})}


def needing(models: Mapping[str, ServedModel], names: Collection[str]) -> set[str]:
    """The ensembles among models that need one of those names, directly or through another."""
    found: set[str] = set()
    sought = set(names)
    while sought:
        sought = {
            name
            for name, served in models.items()
            if name not in found
            and (ensemble := ensemble_of(served)) is not None
            and not sought.isdisjoint(ensemble.declared.models)
        }
        found |= sought
    return found


def members_of(models: Mapping[str, ServedModel], names: Collection[str]) -> set[str]:
    """The models that ensembles of those names need, directly or through another."""
    found: set[str] = set()
    sought = set(names)
    while sought:
        here = [ensemble_of(models[name]) for name in sought if name in models]
        sought = {m for ensemble in here if ensemble for m in ensemble.declared.models} - found
        found |= sought
    return found


def ensemble_of(served: ServedModel) -> EnsembleModel | None:
    """What a served model is made of, if it is an ensemble."""
    return served.model if isinstance(served.model, EnsembleModel) else None
