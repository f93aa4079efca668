"""Fingerprints of functions: what changes them, what doesn't, and what has none."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.optimization.fingerprint import digest_of, digest_of_value

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = """
import functools
import numpy as np
from dataclasses import dataclass
from enum import Enum

DATA = np.arange(12, dtype=np.float32).reshape(3, 4)
DUE = np.array([0, 1, 2])
SMALL = {"b", "a", "c"}
TABLE = {"one": [1, 2.5], "two": (None, True, b"x")}

class Mode(Enum):
    MEAN = "mean"

@dataclass(frozen=True)
class Part:
    weight: float
    of: tuple = ()

    def times(self, value):
        return self.weight * value

class Judge:
    bias = 0.25
    part = Part(2.0, (1, 2))

    def __init__(self, data):
        self.data = data
        self.me = self

    def __call__(self, predict):
        return self.part.times(float((predict(self.data) == DUE).mean())) + self.bias

def helper(values):
    return values.argmax(axis=1)

def evaluate(predict, *, scale=1.0):
    import math
    found = [v for v in helper(predict(DATA)) if v in {1, 2, 3}]
    return math.sqrt(scale) * len(found) + len(SMALL) + len(TABLE) + len(Mode.MEAN.value)

def closing(offset):
    def evaluate(predict):
        return float((predict(DATA) + offset).mean())
    return evaluate

closed = closing(np.array([1.5]))
instance = Judge(DATA)
method = instance.__call__
partial = functools.partial(evaluate, scale=4.0)
"""
NAMES = ("evaluate", "closed", "instance", "method", "partial")


def loaded(source: str, name: str = "evaluate") -> Callable[..., Any]:
    module = types.ModuleType("of_the_caller")
    exec(compile(source, "anywhere.py", "exec"), vars(module))
    sys.modules.pop("of_the_caller", None)
    found: Callable[..., Any] = getattr(module, name)
    return found


@pytest.fixture
def there() -> Any:
    """`dataclasses` looks a class's module up while the class is made."""
    sys.modules["of_the_caller"] = types.ModuleType("of_the_caller")
    yield
    sys.modules.pop("of_the_caller", None)


pytestmark = pytest.mark.usefixtures("there")


def fingerprint(source: str, name: str = "evaluate") -> str:
    sys.modules["of_the_caller"] = types.ModuleType("of_the_caller")
    found = digest_of(loaded(source, name))
    assert found is not None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_same_source_has_the_same_fingerprint_wherever_it_stands(name: str) -> None:
    assert fingerprint(SOURCE, name) == fingerprint("\n\n" + SOURCE, name)


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("evaluate", "dtype=np.float32", "dtype=np.float64"),
        ("evaluate", "np.arange(12", "np.arange(1, 13"),
        ("evaluate", "reshape(3, 4)", "reshape(4, 3)"),
        ("evaluate", "axis=1", "axis=0"),
        ("evaluate", "argmax", "argmin"),
        ("evaluate", "scale=1.0", "scale=2.0"),
        ("evaluate", "{1, 2, 3}", "{1, 2, 4}"),
        ("evaluate", '"a", "c"', '"a", "d"'),
        ("evaluate", "2.5", "2.25"),
        ("evaluate", "None, True", "None, 1"),
        ("evaluate", '= "mean"', '= "median"'),
        ("evaluate", "math.sqrt", "math.cbrt"),
        ("evaluate", "len(SMALL) +", "len(SMALL) -"),
        ("closed", "1.5", "1.25"),
        ("closed", ".mean())\n    return", ".max())\n    return"),
        ("instance", "bias = 0.25", "bias = 0.5"),
        ("instance", "Part(2.0", "Part(3.0"),
        ("instance", "weight * value", "weight + value"),
        ("instance", "np.array([0, 1, 2])", "np.array([0, 1, 1])"),
        ("method", "Judge(DATA)", "Judge(DATA + 1)"),
        ("partial", "scale=4.0", "scale=5.0"),
    ],
)
def test_whatever_decides_a_result_changes_the_fingerprint(name: str, old: str, new: str) -> None:
    assert SOURCE.count(old) == 1
    assert fingerprint(SOURCE, name) != fingerprint(SOURCE.replace(old, new), name)


def test_what_is_not_used_counts_for_nothing() -> None:
    assert fingerprint(SOURCE) == fingerprint(SOURCE.replace("bias = 0.25", "bias = 0.5"))


def test_any_process_gives_the_same_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "of_the_caller.py").write_text(SOURCE)
    script = (
        "from edgefleet.optimization.fingerprint import digest_of as d\n"
        f"import of_the_caller as m\nprint(*(d(getattr(m, n)) for n in {NAMES!r}))\n"
    )
    seen = set()
    for seed in ("1", "2", "2"):  # the last reads the bytecode that the others wrote
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tmp_path)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(done.stdout)
    (line,) = seen
    assert len({*line.split()} - {"None"}) == len(NAMES)


def test_helpers_of_the_callers_own_modules_count(tmp_path: Path) -> None:
    seen = set()
    for body in ("values + 1", "values + 2"):
        helpers = types.ModuleType("helpers_of_the_caller")
        exec(f"def judged(values):\n    return {body}\n", vars(helpers))
        scope: dict[str, Any] = {"helpers": helpers}
        exec("def evaluate(predict):\n    return helpers.judged(predict(1))\n", scope)
        seen.add(digest_of(scope["evaluate"]))
    assert len(seen - {None}) == 2


def test_installed_libraries_count_by_their_version() -> None:
    from sklearn.metrics import accuracy_score

    def by_global(predict: Callable[[Any], Any]) -> Any:
        return accuracy_score([1, 2], predict(np.zeros(2)))

    assert digest_of(by_global) is not None


class Slotted:
    __slots__ = ("_hidden", "shown")

    def __init__(self, hidden: object) -> None:
        self._hidden = hidden

    def evaluate(self, predict: Callable[[Any], Any]) -> Any:
        return predict(self._hidden)


def test_slots_count() -> None:
    one, same, other = (digest_of(Slotted(value).evaluate) for value in (1, 1, 2))
    assert one == same
    assert None is not one != other


def test_a_function_that_changes_what_it_uses_shows_it() -> None:
    calls: list[int] = []

    def evaluate(predict: Callable[[Any], Any]) -> float:
        calls.append(1)
        return 1.0

    before = digest_of(evaluate)
    evaluate(print)
    assert None is not before != digest_of(evaluate)


def of_a_file(predict: Callable[[Any], Any]) -> Any:
    return predict(np.load("images.npy"))


def of_a_table(predict: Callable[[Any], Any]) -> Any:
    return predict(pd.read_csv("images.csv"))


def of_a_path(predict: Callable[[Any], Any]) -> Any:
    return predict(Path("images").read_bytes())


def by_chance(predict: Callable[[Any], Any]) -> Any:
    return predict(np.random.default_rng().random(3))


def by_the_environment(predict: Callable[[Any], Any]) -> Any:
    return predict(os.environ["IMAGES"])


GENERATOR = np.random.default_rng(0)
STREAM = sys.__stderr__


def by_a_generator(predict: Callable[[Any], Any]) -> Any:
    return predict(GENERATOR)


def by_a_stream(predict: Callable[[Any], Any]) -> Any:
    return predict(STREAM)


@dataclasses.dataclass
class Holds:
    it: object

    def __call__(self, predict: Callable[[Any], Any]) -> Any:
        return predict(self.it)


@pytest.mark.parametrize(
    "function",
    [
        of_a_file,
        of_a_table,
        of_a_path,
        by_chance,
        by_the_environment,
        by_a_generator,
        by_a_stream,
        Holds(memoryview(b"held")),
        Holds(np.ma.masked_array([1])),
        Holds(np.frompyfunc(abs, 1, 1)),
        Holds(iter([1])),
        Holds(functools.partial(by_chance)),
    ],
    ids=lambda function: getattr(function, "__name__", str(function)[:20]),
)
def test_what_cannot_be_told_exactly_has_no_fingerprint_and_the_log_says_the_cure(
    function: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgefleet.optimization")
    assert digest_of(function) is None
    assert "give evaluate a digest()" in caplog.text


def test_a_digest_of_ones_own_is_taken_at_its_word() -> None:
    class Own:
        def __init__(self, said: object) -> None:
            self.said = said

        def digest(self) -> object:
            return self.said

        def __call__(self, predict: Callable[[Any], Any]) -> Any:
            return GENERATOR

    assert None is not digest_of(Own("a")) == digest_of(Own("a")) != digest_of(Own("b"))
    with pytest.raises(InvalidInputError, match="gave 3, not a text"):
        digest_of(Own(3))


def frame(*, value: object = "x", dtype: str = "int64") -> pd.DataFrame:
    columns = {"a": pd.Series([1, 2], dtype=dtype), "b": [value, None]}
    return pd.DataFrame({**columns, "c": pd.Categorical(["u", "v"])})


@pytest.mark.parametrize(
    "one, same, other",
    [
        (np.ones((2, 3)), np.ones((2, 3)), np.ones((3, 2))),
        (np.ones(3), np.asfortranarray(np.ones(3)), np.ones(3, np.float32)),
        (np.zeros(0), np.zeros(0), np.zeros((0, 1))),
        (np.array(["a", "b"], object), np.array(["a", "b"], object), np.array(["a", "c"], object)),
        (frame(), frame(), frame(value="y")),
        (frame(), frame(), frame(dtype="int32")),
        (frame(), frame(), frame().set_index("a")),
        (pa.table({"a": [1]}), pa.table({"a": [1]}), pa.table({"a": [2]})),
        (Path("a"), Path("a"), Path("b")),
        ([1, [2]], [1, [2]], [[1], 2]),
        ("ab", "ab", b"ab"),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 2, "b": 1}),
        (0.0, 0.0, -0.0),
        (np.add, np.add, np.subtract),
    ],
    ids=range(14),
)
def test_data_counts_by_content(one: object, same: object, other: object) -> None:
    assert None is not digest_of_value(one) == digest_of_value(same)
    assert None is not digest_of_value(other) != digest_of_value(one)
