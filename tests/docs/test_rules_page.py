"""The page about rules: its policy is fine, and it names what conditions may use, and no more."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from edgefleet.policy_files import policy_of
from edgefleet.protocol.expression import (
    ANSWER,
    FUNCTIONS,
    MACROS,
    PREDICTION,
    READING,
    SPAN,
)
from edgefleet.protocol.policy_problems import problems_of

PAGE = (Path(__file__).parents[2] / "docs/how-to/rules-and-alarms.md").read_text(encoding="utf-8")
POLICY = re.compile(r"<!-- policy -->\n```toml\n(.*?)```", re.DOTALL)
ROW = re.compile(r"^\| a (\w+)[^|]*\| (.*) \|$", re.MULTILINE)
CODE = re.compile(r"`(\w+)`")


def test_the_policy_has_no_problem() -> None:
    [text] = POLICY.findall(PAGE)
    policy = policy_of(tomllib.loads(text), "the page")
    assert problems_of(policy, {"digits"}) == ()
    assert len(policy.alarms) == 3


def test_the_page_names_what_conditions_may_name() -> None:
    told = [set(CODE.findall(names)) for _, names in ROW.findall(PAGE)]
    scopes = [ANSWER, PREDICTION, READING, SPAN]
    wanted = [set(scope.examples) for scope in scopes]
    wanted[1] -= wanted[0]  # "these, and …"
    assert told == wanted


def test_the_page_names_every_function() -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("Functions: "))
    functions, _, macros = line.partition("Over lists: ")
    assert set(CODE.findall(functions)) == set(FUNCTIONS)
    assert set(CODE.findall(macros)) == set(MACROS)
