"""What a trainer with `CanAutomate` must do: train, judge, and register what passes, by itself."""

from __future__ import annotations

import textwrap
from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import CancelledError, NotFoundError, TrainingFailedError
from edgefleet.interfaces.automation import Automation, Gate
from edgefleet.interfaces.training import RunState, TrainingJob
from edgefleet.interfaces.values import ApprovalState
from edgefleet.testing.kit.gaps import Conformance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.interfaces.automation import AutomationRun, CanAutomate
    from edgefleet.interfaces.registry import Registry

    Asked = Callable[..., Automation]

TIMEOUT_S = 300.0  # for steps that take seconds where nothing is wrong

TRAIN = """
    import onnx
    from onnx import TensorProto, helper

    from edgefleet import training

    shape = ["n", 2]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("w", TensorProto.FLOAT, [2], [training.params()["bias"], 0.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, training.output_dir() / "model.onnx")
"""

LEAVES_A_FILE = """
    from edgefleet import training

    (training.output_dir() / "model.onnx").write_bytes(b"no model")
"""

EVALUATE = """
    from edgefleet import training

    size = (training.model_dir() / "model.onnx").stat().st_size
    print("evaluating", size > 0)
    training.log_metric("accuracy", 0.1)
    training.log_metric("accuracy", training.params()["accuracy"])
"""

FOREVER = "import threading; threading.Event().wait()"


def automation_of(
    folder: Path,
    train: str = LEAVES_A_FILE,
    evaluate: str = EVALUATE,
    *,
    accuracy: float = 0.97,
    gate: Gate | None = None,
) -> Automation:
    """An automation of two scripts, which are written to a folder.

    Args:
        folder: theirs is made in it.
        train: text of the training script.
        evaluate: text of the evaluating script.
        accuracy: what `EVALUATE` logs last.
        gate: without one, an accuracy of at least 0.95.
    """
    code = folder / "code"
    code.mkdir(exist_ok=True)
    for name, text in (("train.py", train), ("evaluate.py", evaluate)):
        (code / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return Automation(
        train=TrainingJob(script=code / "train.py", params={"bias": 0.5, "accuracy": accuracy}),
        evaluate=code / "evaluate.py",
        gate=gate or Gate(metric="accuracy", at_least=0.95),
        model="digits",
        name="nightly",
    )


def states(run: AutomationRun) -> dict[str, RunState]:
    """How far each step is that has begun."""
    return {step.name: step.state for step in run.status.steps}


class AutomationConformance(Conformance):
    """Fixtures ``trainer`` and the ``registry`` that it registers in: of an empty fleet a test."""

    @pytest.fixture
    def trainer(self) -> CanAutomate:
        """A trainer that automates."""
        return self.lacks("trainer", "a trainer with CanAutomate for each test")

    @pytest.fixture
    def registry(self) -> Registry:
        """Where it registers."""
        return self.lacks("registry", "the registry of the same fleet")

    @pytest.fixture
    def asked(self, tmp_path: Path) -> Asked:
        """Makes an automation: `automation_of` in the test's folder."""
        return partial(automation_of, tmp_path)

    def test_a_model_that_passes_its_gate_becomes_a_version_that_waits_for_approval(
        self, trainer: CanAutomate, registry: Registry, asked: Asked, tmp_path: Path
    ) -> None:
        """If this fails, a step is missing, doesn't get what the one before left, or what is
        registered isn't what was trained and judged.
        """
        run = trainer.automate(asked(TRAIN)).wait(timeout_s=TIMEOUT_S)
        assert run.status.passed is True
        assert list(states(run)) == ["train", "evaluate", "gate", "register"]
        assert set(states(run).values()) == {RunState.SUCCEEDED}
        version = registry.get(run.version or "none")
        assert version.name == "digits"
        assert version.approval.state is ApprovalState.PENDING
        assert version.metrics == {"accuracy": 0.97}
        assert version.lineage["run"] == run.step("train").id
        pulled = registry.pull(version.reference, tmp_path / "pulled")
        assert [variant.format for variant in pulled.variants] == ["onnx"]
        assert "evaluating True" in list(run.step("evaluate").logs())

    def test_a_model_below_its_gate_is_not_registered(
        self, trainer: CanAutomate, registry: Registry, asked: Asked
    ) -> None:
        """If this fails, the gate reads another value than the newest, or holds nothing back."""
        run = trainer.automate(asked(accuracy=0.9)).wait(timeout_s=TIMEOUT_S)
        assert run.status.passed is False
        assert list(states(run)) == ["train", "evaluate", "gate"]
        assert run.version is None
        assert registry.list() == ()

    def test_a_gate_may_be_an_upper_bound(self, trainer: CanAutomate, asked: Asked) -> None:
        """If this fails, a model with a large loss goes on."""
        automation = asked(accuracy=0.2, gate=Gate(metric="accuracy", at_most=0.1))
        run = trainer.automate(automation).wait(timeout_s=TIMEOUT_S)
        assert run.status.passed is False

    def test_a_script_that_fails_ends_the_execution_and_is_named(
        self, trainer: CanAutomate, registry: Registry, asked: Asked
    ) -> None:
        """If this fails, nobody learns which step went wrong, or the next one runs all the same."""
        run = trainer.automate(asked(evaluate="raise SystemExit(7)"))
        with pytest.raises(TrainingFailedError, match="evaluate"):
            run.wait(timeout_s=TIMEOUT_S)
        assert states(run) == {"train": RunState.SUCCEEDED, "evaluate": RunState.FAILED}
        assert registry.list() == ()

    def test_a_metric_that_is_never_logged_fails_at_the_gate_and_says_so(
        self, trainer: CanAutomate, asked: Asked
    ) -> None:
        """If this fails, a typing error in a metric's name lets models pass, or hold them back
        without a word.
        """
        run = trainer.automate(asked(evaluate="print('no figures')"))
        with pytest.raises(TrainingFailedError, match="metric"):
            run.wait(timeout_s=TIMEOUT_S)
        assert states(run)["gate"] is RunState.FAILED

    def test_an_automation_is_cancelled_with_the_step_that_runs(
        self, trainer: CanAutomate, asked: Asked
    ) -> None:
        """If this fails, cancelling stops the waiting, and a script goes on and costs."""
        run = trainer.automate(asked(train=FOREVER))
        run.cancel()
        with pytest.raises(CancelledError):
            run.wait(timeout_s=TIMEOUT_S)
        assert set(states(run).values()) <= {RunState.CANCELLED}
        run.cancel()

    def test_an_execution_can_be_found_again(self, trainer: CanAutomate, asked: Asked) -> None:
        """If this fails, a notebook that was restarted has lost its executions."""
        runs = [trainer.automate(asked(accuracy=0.9)) for _ in range(2)]
        assert runs[0].id != runs[1].id
        for run in runs:
            again = trainer.automation(run.id).wait(timeout_s=TIMEOUT_S)
            assert (again.id, again.status) == (run.id, run.status)

    def test_an_unknown_execution_is_not_found(self, trainer: CanAutomate) -> None:
        """If this fails, "not found" isn't mapped, or an id reaches a path unchecked."""
        for name in ("nightly-nothing", "../../etc"):
            with pytest.raises(NotFoundError):
                trainer.automation(name)
