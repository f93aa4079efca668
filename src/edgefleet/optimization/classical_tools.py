"""An estimator as an ONNX model: skl2onnx, and onnxmltools' converters of LightGBM and XGBoost.

Rules kept here:

- Classes come out as tensors, never as maps; each score stands in its class's column.
- Trees decide where the original decides (`classical_mending`).
- Nothing in a file depends on the process that wrote it.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidModelError
from edgefleet.optimization.classical_mending import (
    ML_DOMAIN,
    ML_OPSET,
    in_double,
    in_float,
    mend,
)
from edgefleet.optimization.libraries import require, versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from edgefleet.optimization.classical_table import Table

OPSETS = {"": 17, ML_DOMAIN: ML_OPSET}
"""Old enough for any engine of the last years."""

TOOLS = ("skl2onnx", "onnxmltools", "scikit-learn", "lightgbm", "xgboost", "xgboost-cpu")
"""Distributions that a conversion may depend on."""

_BOOSTERS = ("lightgbm", "xgboost")


def write(
    estimator: Any,  # noqa: ANN401 - scikit-learn has no types
    table: Table,
    *,
    double: bool,
    scale_in_double: bool = False,
) -> onnx.ModelProto:
    """The estimator as an ONNX model.

    Args:
        estimator: fitted.
        table: some rows, for the kinds of the inputs.
        double: numbers go in, and are worked on, as float64.
        scale_in_double: scalers work in float64 between float32 on both sides.

    Raises:
        InvalidModelError: no converter for it, or for a part of it.
        MissingExtraError: a library that its converter is in isn't installed.
    """
    from skl2onnx import convert_sklearn
    from sklearn.base import is_classifier

    register(estimator)
    options: dict[Any, dict[str, Any]] = {}
    if scale_in_double:
        options = {kind: {"div": "div_cast"} for kind in scalers(estimator)}
    if is_classifier(estimator):
        options[id(estimator)] = {"zipmap": False}
    types = table.types(double=double)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of attributes that the converters of today still read
        try:
            model = convert_sklearn(estimator, "model", types, "", OPSETS, options=options or None)
        except Exception as error:  # converters raise whatever comes
            raise _refusal(estimator, error) from error
    found: onnx.ModelProto = model
    # skl2onnx takes them out of a set, in another order in each process.
    found.opset_import.sort(key=lambda imported: imported.domain)
    return found


def parts(estimator: Any) -> Iterator[Any]:  # noqa: ANN401 - as above
    """An estimator and all that it is made of."""
    yield estimator
    if hasattr(estimator, "get_params"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for value in estimator.get_params(deep=True).values():
                if hasattr(value, "get_params"):
                    yield value


def scalers(estimator: Any) -> list[type]:  # noqa: ANN401 - as above
    """The kinds of scalers in it that can work in double between floats."""
    from sklearn.preprocessing import MaxAbsScaler, RobustScaler, StandardScaler

    known = (StandardScaler, RobustScaler, MaxAbsScaler)
    return sorted({type(p) for p in parts(estimator) if type(p) in known}, key=str)


def register(estimator: Any) -> None:  # noqa: ANN401 - as above
    """Make the converters known that its parts need.

    Raises:
        MissingExtraError: onnxmltools isn't installed, and LightGBM or XGBoost is in it.
    """
    mend()
    homes = {type(part).__module__.split(".")[0] for part in parts(estimator)}
    if homes.intersection(_BOOSTERS):
        require("onnxmltools", extra="classical")
    if "lightgbm" in homes:
        _register_lightgbm()
    if "xgboost" in homes:
        _register_xgboost()


@functools.cache
def _register_lightgbm() -> None:
    import lightgbm
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes

    update_registered_converter(
        lightgbm.LGBMClassifier,
        "LightGbmLGBMClassifier",
        shapes.calculate_linear_classifier_output_shapes,
        in_double(convert_lightgbm),
        options={"zipmap": [True, False, "columns"], "nocl": [True, False]},
    )
    update_registered_converter(
        lightgbm.LGBMRegressor,
        "LightGbmLGBMRegressor",
        shapes.calculate_linear_regressor_output_shapes,
        in_double(convert_lightgbm),
        options={"split": None},
    )


@functools.cache
def _register_xgboost() -> None:
    import xgboost
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes

    for kind in (xgboost.XGBClassifier, xgboost.XGBRFClassifier):
        update_registered_converter(
            kind,
            f"XGBoost{kind.__name__}",
            shapes.calculate_linear_classifier_output_shapes,
            in_float(convert_xgboost),
            options={"zipmap": [True, False, "columns"], "nocl": [True, False]},
        )
    for kind in (xgboost.XGBRegressor, xgboost.XGBRFRegressor):
        update_registered_converter(
            kind,
            f"XGBoost{kind.__name__}",
            shapes.calculate_linear_regressor_output_shapes,
            in_float(convert_xgboost),
        )


def _refusal(estimator: Any, error: Exception) -> InvalidModelError:  # noqa: ANN401 - as above
    tried = ", ".join(f"{name} {version}" for name, version in versions(*TOOLS).items())
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return InvalidModelError(
        f"no converter makes an ONNX model of {described(estimator)}: {first} (tried {tried})",
        cure="put what they do not know (your own classes and functions, resampling, text of any "
        "length) before the model, or export that part another way",
    )


def described(estimator: Any) -> str:  # noqa: ANN401 - as above
    """The names of its kinds: ``Pipeline of StandardScaler, SVC``."""
    inner = list(dict.fromkeys(type(part).__name__ for part in list(parts(estimator))[1:]))
    outer = type(estimator).__name__
    return f"{outer} of {', '.join(inner)}" if inner else outer
