"""Converters of trees and support vectors, wrapped so that they decide where the original does.

scikit-learn's trees and XGBoost compare in float32, HistGradientBoosting and LightGBM in float64:

- The former get float32 whatever comes in; what they give goes on as was declared.
- The latter's thresholds t are compared as ``x <= t``. Where x is float32 they become the largest
  float32 up to t: then every float32 falls on the side where the original has it. Where x is
  float64 they stay float64.

And what goes wrong with current scikit-learn is put right on the way: numpy's integers in
attributes, which onnx takes for no numbers, and an option of VotingClassifier that only its
``transform`` reads.
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Converter = Callable[..., None]

ML_DOMAIN = "ai.onnx.ml"
ML_OPSET = 3
"""The first with trees in float64."""

IN_FLOAT = (
    "SklearnDecisionTreeClassifier",
    "SklearnDecisionTreeRegressor",
    "SklearnExtraTreeClassifier",
    "SklearnExtraTreeRegressor",
    "SklearnExtraTreesClassifier",
    "SklearnExtraTreesRegressor",
    "SklearnGradientBoostingClassifier",
    "SklearnGradientBoostingRegressor",
    "SklearnIsolationForest",
    "SklearnOneClassSVM",
    "SklearnRandomForestClassifier",
    "SklearnRandomForestRegressor",
    "SklearnSVC",
    "SklearnSVR",
)
"""What compares in float32, or has no operator for float64."""

IN_DOUBLE = {
    "SklearnHistGradientBoostingClassifier": "TreeEnsembleClassifier",
    "SklearnHistGradientBoostingRegressor": "TreeEnsembleRegressor",
}

_NUMBERS = ("nodes_values", "class_weights", "target_weights", "nodes_hitrates", "base_values")
"""Attributes of trees that may be float32 or, as tensors, float64 (ai.onnx.ml 3)."""


@functools.cache
def mend() -> None:
    """Wrap skl2onnx's own converters, once in a process."""
    from skl2onnx.common import _registration as registered

    def replace(
        alias: str, wrapped: Callable[[Converter], Converter], **options: list[Any]
    ) -> None:
        convert = registered.get_converter(alias)
        known = convert.get_allowed_options()
        known = {**(known or {}), **options} if known or options else known
        registered.register_converter(alias, wrapped(convert), overwrite=True, options=known)

    for alias in IN_FLOAT:
        replace(alias, in_float)
    for alias, operator in IN_DOUBLE.items():
        replace(alias, functools.partial(_newest, operator=operator))
    replace("SklearnVotingClassifier", _without_transform)
    replace("SklearnLinearSVC", _as_it_is, zipmap=[True, False, "columns"])


def in_float(convert: Converter) -> Converter:
    """A converter whose operators get float32, and whose results go on as was declared."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    def converting(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401 - untyped
        inputs = []
        for variable in operator.inputs:
            if isinstance(variable.type, DoubleTensorType):
                narrow = _like(variable, scope, FloatTensorType(variable.type.shape))
                _cast(scope, container, variable, narrow)
                inputs.append(narrow)
            else:
                inputs.append(variable)
        _through(convert, scope, operator, container, inputs)

    return converting


def in_double(convert: Converter) -> Converter:
    """A converter that gets to know the thresholds in float64, and keeps them or floors them."""
    from skl2onnx.common.data_types import DoubleTensorType

    def converting(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401 - untyped
        double = any(isinstance(value.type, DoubleTensorType) for value in operator.inputs)
        inputs = [_as_double(value) for value in operator.inputs]
        _through(convert, scope, operator, _Trees(container, double=double), inputs)

    return converting


def _newest(convert: Converter, *, operator: str) -> Converter:
    """`in_double` for a converter that has to be told of an operator that takes float64."""

    def told(*scope_operator_container: Any) -> None:  # noqa: ANN401 - untyped
        convert(*scope_operator_container, operator, ML_DOMAIN, ML_OPSET)

    return in_double(told)


def _through(
    convert: Converter,
    scope: Any,  # noqa: ANN401 - skl2onnx has no types
    operator: Any,  # noqa: ANN401 - as above
    container: Any,  # noqa: ANN401 - as above
    inputs: list[Any],
) -> None:
    """Convert with other inputs; scores come out as float32 and go on as was declared."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    outputs, casts = [], []
    for variable in operator.outputs:
        if isinstance(variable.type, DoubleTensorType):
            narrow = _like(variable, scope, FloatTensorType(variable.type.shape))
            casts.append((narrow, variable))
            outputs.append(narrow)
        else:
            outputs.append(variable)
    convert(scope, _Operator(operator, inputs, outputs), container)
    for narrow, variable in casts:
        _cast(scope, container, narrow, variable)


def _as_it_is(convert: Converter) -> Converter:
    def converting(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401 - untyped
        convert(scope, operator, container)

    return converting


def _without_transform(convert: Converter) -> Converter:
    def converting(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401 - untyped
        original = operator.raw_operator
        operator.raw_operator = copy.copy(original)
        operator.raw_operator.flatten_transform = False
        try:
            convert(scope, operator, container)
        finally:
            operator.raw_operator = original

    return converting


class _Operator:
    """An operator with other inputs and outputs than it was declared with."""

    def __init__(self, operator: Any, inputs: list[Any], outputs: list[Any]) -> None:  # noqa: ANN401
        self._operator = operator
        self.inputs = inputs
        self.outputs = outputs
        self.input_full_names = [variable.full_name for variable in inputs]
        self.output_full_names = [variable.full_name for variable in outputs]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it has
        return getattr(self._operator, name)


class _Trees:
    """What a converter writes nodes into; those of trees are put right on the way.

    Args:
        container: skl2onnx's.
        double: the trees are fed float64.
    """

    def __init__(self, container: Any, *, double: bool) -> None:  # noqa: ANN401 - untyped
        self._container = container
        self._double = double

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it has
        return getattr(self._container, name)

    def add_node(self, op_type: str, inputs: Any, outputs: Any, **more: Any) -> None:  # noqa: ANN401
        if op_type.startswith("TreeEnsemble"):
            more = self._attributes(more)
        self._container.add_node(op_type, inputs, outputs, **more)

    def _attributes(self, given: dict[str, Any]) -> dict[str, Any]:
        import numpy as np
        from onnx import numpy_helper

        found: dict[str, Any] = {}
        for name, value in given.items():
            if name in _NUMBERS:
                exact = np.asarray(value, dtype=np.float64).ravel()
                if not exact.size:
                    continue
                if self._double:
                    tensor = f"{name}_as_tensor"
                    found[tensor] = numpy_helper.from_array(exact, tensor)
                elif name == "nodes_values":
                    found[name] = _floors(exact, given["nodes_modes"])
                else:
                    found[name] = exact.astype(np.float32).tolist()
            elif isinstance(value, list | np.ndarray):
                found[name] = [item.item() if hasattr(item, "item") else item for item in value]
            else:
                found[name] = value
        return found


def _floors(thresholds: Any, modes: list[str]) -> list[float]:  # noqa: ANN401 - an array
    """Thresholds in float32, with the float32 on the same sides of them."""
    import numpy as np

    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
        below = np.nextafter(near, np.float32(-np.inf))
    floors = np.where((near > thresholds) & (np.asarray(modes) == "BRANCH_LEQ"), below, near)
    return [float(value) for value in floors]


def _like(variable: Any, scope: Any, kind: Any) -> Any:  # noqa: ANN401 - skl2onnx has no types
    name = scope.get_unique_variable_name(f"{variable.onnx_name}_cast")
    return type(variable)(name, name, scope=scope.name, type=kind)


def _as_double(variable: Any) -> Any:  # noqa: ANN401 - as above
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    if not isinstance(variable.type, FloatTensorType):
        return variable
    kind = DoubleTensorType(variable.type.shape)
    return type(variable)(variable.raw_name, variable.onnx_name, scope=variable.scope, type=kind)


def _cast(scope: Any, container: Any, source: Any, target: Any) -> None:  # noqa: ANN401 - as above
    container.add_node(
        "Cast",
        source.full_name,
        target.full_name,
        name=scope.get_unique_operator_name("Cast"),
        to=target.type.to_onnx_type().tensor_type.elem_type,
    )
