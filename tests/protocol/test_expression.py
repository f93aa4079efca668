"""Conditions: what is refused and where, what counts as not holding, and what one may cost."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.errors import InvalidInputError, MissingExtraError
from edgefleet.protocol.expression import (
    ANSWER,
    MAX_ITEMS,
    MAX_LENGTH,
    PREDICTION,
    READING,
    SPAN,
    Scope,
    compile_condition,
)


@pytest.mark.parametrize(
    "text, scope, holds",
    [
        ("score > 0.9 && top == 3", PREDICTION, True),
        ("score > 0.95", PREDICTION, False),
        ("top > 2.5", PREDICTION, True),
        ("scores.exists(s, s > 0.91)", PREDICTION, True),
        ("size(drifted) > 0", PREDICTION, True),
        ("!disagrees", PREDICTION, True),
        ("values[1] < 0.0", PREDICTION, True),
        ("model.startsWith('dig')", ANSWER, True),
    ],
)
def test_condition_on_a_prediction(text: str, scope: Scope, holds: bool) -> None:  # noqa: FBT001
    facts = {
        "model": "digits",
        "score": 0.92,
        "top": 3,
        "scores": [0.92],
        "values": [0.5, -1.0],
        "drifted": ["x"],
        "disagrees": False,
    }
    assert compile_condition(text, scope).holds(facts) is holds


@pytest.mark.parametrize(
    "text",
    ["values.vibration > 4.0", "values['vibration'] > 4.0", "has(values.vibration) && key == 'a'"],
)
def test_condition_on_a_reading_names_its_values(text: str) -> None:
    assert compile_condition(text, READING).holds({"key": "a", "values": {"vibration": 4.5}})


def test_condition_on_a_span_names_what_it_was_reduced_to() -> None:
    condition = compile_condition("count > 9 && mean.vibration > 4.0", SPAN)
    assert condition.holds({"count": 10, "mean": {"vibration": 4.5}})
    assert not condition.holds({"count": 9, "mean": {"vibration": 4.5}})


@pytest.mark.parametrize(
    "text, place, why",
    [
        ("score >", "1:8", "it ends here"),
        ("score > 0.9 &&\n top 3", "2:6", "extraneous input '3'"),
        ("", "1:1", "it ends here"),
        ("score > 0.9 ;", "1:13", "token recognition error"),
        ("top == 1 &&\n  scor > 0.9", "2:3", "there is no 'scor' in a prediction"),
        ("now() > 3", "1:1", "there is no function 'now'"),
        ("model.matches('(a+)+$')", "1:7", "there is no function 'matches'"),
        ("scores.map(s, s) == []", "1:8", "there is no 'map'"),
        ("scores.all(x, scores.all(y, x == y))", "1:22", "lies in another one"),
        ("r'\\' == r'\\' || scores.all(x, scores.all(y, y > x))", "1:38", "in another one"),
        ("(" * 25 + "true" + ")" * 25, "1:25", "24 deep"),
        ("score", "1:1", "it gives a number, not true or false"),
        ("model > 1", "1:1", "types don't fit"),
        ("model + 1 == 'a'", "1:1", "string + int"),
        ("size(score) > 1", "1:1", "types don't fit"),
    ],
)
def test_wrong_condition_is_refused_with_its_place(text: str, place: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^[12]:") as caught:
        compile_condition(text, PREDICTION)
    assert caught.value.message.startswith(f"{place}: ")
    assert why in caught.value.message
    assert caught.value.cure


def test_refusal_points_at_the_place() -> None:
    with pytest.raises(InvalidInputError) as caught:
        compile_condition("top == 1 &&\n  scor > 0.9", PREDICTION)
    assert caught.value.message.splitlines()[1:] == ["  |   scor > 0.9", "  |   ^"]


def test_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInputError) as caught:
        compile_condition("mean.vibration > 1.0", READING)
    assert caught.value.cure == "name one of: stream, key, values"


def test_a_filter_cannot_ask_what_only_the_watch_knows() -> None:
    with pytest.raises(InvalidInputError, match="before it is kept"):
        compile_condition("disagrees", ANSWER)


def test_condition_over_the_length_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=f"{MAX_LENGTH} are allowed"):
        compile_condition("score > 0.9 || " * 80 + "true", PREDICTION)


@pytest.mark.parametrize(
    "text, facts, why",
    [
        ("score > 0.9", {}, "score"),
        ("score > 0.9", {"score": None}, "No such overload"),
        ("scores[3] > 0.9", {"scores": [0.5]}, "index"),
        ("top / 0 == 1", {"top": 1}, "zero"),
        ("top + 9223372036854775807 > 0", {"top": 1}, "overflow"),
    ],
)
def test_what_cannot_be_evaluated_does_not_hold_and_is_counted(
    text: str, facts: dict[str, object], why: str
) -> None:
    condition = compile_condition(text, PREDICTION)
    assert [condition.holds(facts), condition.holds(facts)] == [False, False]
    assert condition.failures == 2
    assert why in condition.failure


def test_missing_value_of_a_reading_does_not_hold() -> None:
    condition = compile_condition("values.temperature > -18.0", READING)
    assert not condition.holds({"values": {"humidity": 3.0}})
    assert "temperature" in condition.failure


def test_or_holds_where_one_side_does_though_the_other_is_missing() -> None:
    condition = compile_condition("values.a > 1.0 || values.b > 1.0", READING)
    assert condition.holds({"values": {"b": 2.0}})
    assert not condition.failures


BIG = {
    "model": "m" * 64,
    "score": 0.5,
    "scores": [0.5] * MAX_ITEMS,
    "values": [0.5] * MAX_ITEMS,
    "drifted": [f"f{n}" for n in range(MAX_ITEMS)],
}
COSTLY = {
    "macro": "scores.all(x, " + "||".join(["x>9.0"] * 120) + "||true)",
    "four macros": "&&".join(
        "scores.all(x, " + "||".join(["x>9.0"] * 29) + "||true)" for _ in range(4)
    ),
    "chained": "size(scores" + ".filter(x,true)" * 4 + ")>1",
    "sums of lists": "size(" + "+".join(["scores"] * 140) + ")>0",
    "sums of texts": "(" + "+".join(["model"] * 160) + ").contains('z')",
    "comparisons": "&&".join(["values==values"] * 60),
    "members": "||".join(["'z' in drifted"] * 60),
    "negations": "!" * 1000 + "true",
}


@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY)
def test_no_condition_that_is_let_through_costs_much(text: str) -> None:
    condition = compile_condition(text, PREDICTION)
    before = time.process_time()
    for _ in range(5):
        condition.holds(BIG)
    assert (time.process_time() - before) / 5 < 0.25  # some milliseconds on a quiet machine
    assert not condition.failures


WORDS = (
    *("score", "top", "scores", "values", "model", ".", "[", "]", "(", ")", "{", "}", ",", ":"),
    *("?", "&&", "||", "!", "-", "+", "*", "/", "==", ">", "in", "1", "1.5", "'a'", "r'\\'", "x"),
    *("scores.all(x,x>0.1)", ".filter(", "size(", "has(", "null", "true", "0x1F", "1u", "1e400"),
    *("#", "\\", "`"),
)


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(WORDS),
        max_size=10,
    ).map(" ".join)
)
def test_any_text_is_refused_or_evaluated(text: str) -> None:
    try:
        condition = compile_condition(text, PREDICTION)
    except InvalidInputError:
        return
    condition.holds(BIG)


def test_only_the_extension_is_loaded_and_the_package_still_works_after_it() -> None:
    code = (
        "import sys\n"
        "from edgefleet.protocol.expression import READING, compile_condition, extension\n"
        "assert compile_condition('key == stream', READING).holds({'key': 'a', 'stream': 'a'})\n"
        "assert not {'typer', 'rich', 'prompt_toolkit', 'cel'} & sys.modules.keys()\n"
        "import cel\n"
        "assert cel.evaluate('1 + 1') == 2 and sys.modules['cel.cel'] is extension()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_the_library_the_extra_is_named() -> None:
    code = (
        "import sys, importlib.util\n"
        "from edgefleet.errors import MissingExtraError\n"
        "class Without:\n"
        "    def __init__(self, finder):\n"
        "        self.finder = finder\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return None if name == 'cel' else self.finder.find_spec(name, path, target)\n"
        "sys.meta_path = [Without(finder) for finder in sys.meta_path]\n"
        "from edgefleet.protocol.expression import PREDICTION, compile_condition\n"
        "try:\n"
        "    compile_condition('score > 0.9', PREDICTION)\n"
        "except MissingExtraError as error:\n"
        "    print(error.cure)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "edgefleet[rules]" in done.stdout, done.stderr
    assert issubclass(MissingExtraError, ImportError)
