"""What every engine keeps of `edgefleet_runtime.engines.base`, whichever library it stands on.

A test module names its engine in a subclass ``TestRules``, and has a fixture ``path``: a model of
``x`` FP32 [1, 4] (or any first length) to ``y`` = x + 2, and other outputs if it likes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from edgefleet.errors import InferenceError, InvalidInputError
from edgefleet_runtime.engines.base import EngineOptions

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_runtime.engines.base import Engine, LoadedModel

ONES = {"x": np.ones((1, 4), np.float32)}


class EngineRules:
    """The tests; `engine` opens what the fixture ``path`` made."""

    engine: ClassVar[type[Engine]]

    @pytest.fixture
    def model(self, path: Path) -> LoadedModel:
        return self.engine().load(path, EngineOptions(threads=1))

    def test_answers_are_not_overwritten_by_later_runs(self, model: LoadedModel) -> None:
        first = model.infer(ONES)["y"]
        model.infer({"x": ONES["x"] * 9})
        assert first.tolist() == [[3.0] * 4]

    def test_threads_get_their_own_answers(self, model: LoadedModel) -> None:
        asked = [{"x": ONES["x"] * np.float32(number)} for number in range(4)]
        alone = [model.infer(inputs) for inputs in asked]
        right: list[int] = []

        def work(number: int) -> None:
            for _ in range(200):
                answer = model.infer(asked[number])
                if all((answer[name] == due).all() for name, due in alone[number].items()):
                    right.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [right.count(number) for number in range(4)] == [200] * 4
        assert [answer["y"].tolist() for answer in alone] == [[[n + 2.0] * 4] for n in range(4)]

    @pytest.mark.parametrize(
        "inputs,said",
        [
            ({}, "missing"),
            ({"x": np.ones((1, 5), np.float32)}, "shape"),
            ({"x": np.ones((1, 4), np.float64)}, "FP32"),
            ({**ONES, "w": ONES["x"]}, "no input 'w'"),
        ],
        ids=["none", "shape", "datatype", "one too many"],
    )
    def test_wrong_inputs_are_the_callers_fault(
        self, model: LoadedModel, inputs: Any, said: str
    ) -> None:
        with pytest.raises(InvalidInputError, match=said):
            model.infer(inputs)

    def test_a_closed_model_says_so_and_closes_twice(self, model: LoadedModel) -> None:
        model.infer(ONES)
        model.close()
        model.close()
        with pytest.raises(InferenceError, match="closed"):
            model.infer(ONES)
