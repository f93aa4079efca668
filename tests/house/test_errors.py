"""The error tree: what its docstring draws is what the code has, and an error says its cure."""

from __future__ import annotations

import builtins
import copy
import pickle
import re

import pytest

from edgefleet import errors as e

LINE = re.compile(r"^    (?P<stem>[│├└─ ]*)(?P<name>\w+)(?:\((?P<builtins>[\w, ]+)\))?$")


def drawn() -> dict[str, tuple[str, ...]]:
    """The tree of the docstring: class -> its bases in order."""
    assert e.__doc__ is not None
    tree: dict[str, tuple[str, ...]] = {}
    above: list[str] = []
    for line in e.__doc__.partition("::\n")[2].splitlines():
        if match := LINE.match(line):
            depth = len(match["stem"]) // 4
            named = tuple(match["builtins"].split(", ")) if match["builtins"] else ()
            above[depth:] = [match["name"]]
            tree[match["name"]] = (*above[depth - 1 : depth], *named)
    return tree


CLASSES: dict[str, type[e.EdgeFleetError]] = {
    name: kind
    for name, kind in vars(e).items()
    if isinstance(kind, type) and issubclass(kind, e.EdgeFleetError)
}
each_class = pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)


def test_docstring_draws_the_tree_that_the_code_has() -> None:
    coded = {
        name: tuple(base.__name__ for base in kind.__bases__) for name, kind in CLASSES.items()
    }
    assert drawn() == coded


def test_tree_is_drawn_whole() -> None:
    assert len(drawn()) == len(CLASSES) > 25


@each_class
def test_every_error_is_a_builtin_that_a_python_user_would_catch(
    kind: type[e.EdgeFleetError],
) -> None:
    if kind is not e.EdgeFleetError:
        caught = {base for base in kind.__mro__ if vars(builtins).get(base.__name__) is base}
        assert caught - {Exception, BaseException, object}


@each_class
def test_every_error_says_in_a_line_when_it_is_raised(kind: type[e.EdgeFleetError]) -> None:
    assert kind.__doc__
    assert kind.__doc__.splitlines()[0].endswith(".")


@each_class
def test_message_ends_with_its_cure(kind: type[e.EdgeFleetError]) -> None:
    error = kind("the disk of cam-07 is full", cure="free space there")
    assert str(error) == "the disk of cam-07 is full\n  cure: free space there"
    assert str(kind("the disk of cam-07 is full")) == "the disk of cam-07 is full"


@each_class
def test_error_survives_a_process_boundary_and_a_copy(kind: type[e.EdgeFleetError]) -> None:
    error = kind("m", cure="c")
    error.located(provider="p", operation="o")
    error.retryable = True
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert (str(other), vars(other)) == (str(error), vars(error))


@pytest.mark.parametrize(
    "kind",
    [
        e.ConflictError,
        e.AccessExpiredError,
        e.UnavailableError,
        e.ThrottledError,
        e.WaitTimeoutError,
    ],
)
def test_error_that_time_may_heal_is_retryable(kind: type[e.EdgeFleetError]) -> None:
    assert kind("x").retryable
    assert not kind("x", retryable=False).retryable


@pytest.mark.parametrize("kind", [e.InvalidInputError, e.AlreadyExistsError, e.IntegrityError])
def test_error_that_stays_is_not_retryable(kind: type[e.EdgeFleetError]) -> None:
    assert not kind("x").retryable
    assert kind("x", retryable=True).retryable


def test_inner_boundary_knows_best_where_it_happened() -> None:
    error = e.UnavailableError("x", provider="aws")
    error.located(provider="local", operation="registry.push")
    error.located(operation="fleet.deploy")
    assert (error.provider, error.operation) == ("aws", "registry.push")


def test_place_is_put_in_front_of_the_message() -> None:
    error = e.DocumentError("malformed", cure="send it again")
    error.prefixed("index.json")
    assert str(error) == "index.json: malformed\n  cure: send it again"
    assert error.args == ("index.json: malformed",)


def test_unknown_features_are_listed_for_programs_too() -> None:
    error = e.UnknownFeatureError("x", features=("a", "b"))
    assert error.features == ("a", "b")
    assert pickle.loads(pickle.dumps(error)).features == ("a", "b")
