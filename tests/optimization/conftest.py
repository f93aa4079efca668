from __future__ import annotations

import dataclasses
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.optimization.models import save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

TRAINED_ON = 1200  # of 1,797 scanned digits


@dataclasses.dataclass(frozen=True)
class Digits:
    """A network trained on scikit-learn's scanned digits, as skl2onnx writes it."""

    path: Path
    zipmap_path: Path
    calibration: NDArray[np.float32]
    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def accuracy(self, predict: Callable[[Any], Any]) -> float:
        return float((predict(self.images)["label"] == self.labels).mean())


def trained(folder: Path, layers: tuple[int, ...]) -> Digits:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 20 epochs are enough to test with
        network = MLPClassifier(layers, max_iter=20, random_state=0)
        network.fit(images[:TRAINED_ON], labels[:TRAINED_ON])
    paths = {}
    for zipmap in (False, True):
        model = to_onnx(network, images[:1], options={"zipmap": zipmap}, target_opset=OPSETS)
        paths[zipmap] = save(model, folder / f"digits-{zipmap}.onnx")
    return Digits(
        path=paths[False],
        zipmap_path=paths[True],
        calibration=images[:200],
        images=images[TRAINED_ON:],
        labels=labels[TRAINED_ON:],
    )


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return trained(tmp_path_factory.mktemp("digits"), (96, 48))


OPSETS = {"": 17, "ai.onnx.ml": 3}


def widened(digits: Digits, path: Path) -> Digits:
    """The same function in float32, with one hidden unit 20,000 times as large as its neighbours.

    ReLU is positively homogeneous, so what one layer gains the next gives back. Eight bits
    for the whole layer then leave nothing for the other units.
    """
    model = onnx.load(digits.path)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    first, bias, second = (
        arrays[name].copy() for name in ("coefficient", "intercepts", "coefficient1")
    )
    unit = int(np.argmax(np.abs(first).sum(0)))
    factor = np.float32(20000)
    first[:, unit] *= factor
    bias[..., unit] *= factor
    second[unit] /= factor
    changed = {"coefficient": first, "intercepts": bias, "coefficient1": second}
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    return dataclasses.replace(digits, path=save(model, path))


@pytest.fixture(scope="session")
def wide_range(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """Nearly all of its weights belong to the layers that int8 ruins."""
    return widened(digits, tmp_path_factory.mktemp("wide") / "wide.onnx")


@pytest.fixture(scope="session")
def wide_in_part(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """Most of its weights belong to layers that int8 suits."""
    folder = tmp_path_factory.mktemp("part")
    return widened(trained(folder, (24, 192, 96)), folder / "wide.onnx")


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_anybody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Also for the fixtures of a whole session, which are made before those of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("session-cache")))
        yield


@pytest.fixture(autouse=True)
def kept(
    _no_cache_of_anybody: None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The cache of this test alone."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "edgefleet" / "optimize"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary files of these tests lie here, so that what is left behind shows."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
