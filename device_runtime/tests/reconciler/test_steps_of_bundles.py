"""A release whose bundles declare steps before and after their models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests.reconciler.rig import Rig, serving
from device_runtime.tests.support import details
from edgefleet.protocol.steps import FEATURE

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.protocol.layout import BundleLayout


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def stepped(rig: Rig, factor: float, **steps: Any) -> BundleLayout:
    """A bundle of ``y = factor * x``, recorded without its steps."""
    content = json.dumps({"factor": factor}).encode()
    about = details(factor, entry="model.json", variant="fp32", requires=(FEATURE,), **steps)
    return rig.repository.bundle({"model.json": content}, about)


def test_steps_are_part_of_what_is_served_and_not_of_what_is_self_tested(rig: Rig) -> None:
    layout = stepped(
        rig,
        3,
        preprocessing=({"step": "rescale", "scale": 10.0},),
        postprocessing=({"step": "argmax", "into": "best"},),
    )
    rig.deploy(rig.repository.release({"digits": layout}))
    assert rig.condition == "active"
    test = rig.model().self_test
    assert test is not None
    assert (test.passed, test.cases) == (True, 1)
    with rig.table.lease("digits") as served:
        outputs, _ = served.infer({"x": np.array([[0, 2, 1, 0]], np.float32)})
        assert [spec.name for spec in served.model.interface.outputs] == ["best"]
    assert outputs["best"].tolist() == [1]
    assert rig.model().providers == ("FakeExecutionProvider",)


def test_a_step_unknown_here_rejects_the_release_before_its_weights_are_fetched(rig: Rig) -> None:
    serving(rig, 2)
    layout = stepped(rig, 3, postprocessing=({"step": "frobnicate"},))
    rig.deploy(rig.repository.release({"digits": layout}, version="2"))
    assert rig.condition == "rejected"
    said = "bundle of digits:2, variant fp32: step 1 of postprocessing is 'frobnicate'"
    assert said in rig.driver.errors[0]
    assert layout.manifest("fp32").layers[0].digest not in rig.store
    assert rig.factor() == 2


def test_steps_that_do_not_fit_the_model_reject_the_release(rig: Rig) -> None:
    serving(rig, 2)
    layout = stepped(rig, 3, preprocessing=({"step": "argmax"},))
    rig.deploy(rig.repository.release({"digits": layout}, version="2"))
    assert rig.condition == "rejected"
    assert "model digits: the model takes FP32[-1, 4] as 'x'" in (rig.model("2").reason or "")
    assert rig.engine.opened[-1].closed
    assert rig.factor() == 2
