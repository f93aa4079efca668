"""What policies allow."""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet_aws.cloud.policies import allows

OBJECTS = "arn:aws:s3:::bucket/fleet/devices/"
WRITE = {
    "Effect": "Allow",
    "Action": ["s3:PutObject", "s3:Get*"],
    "Resource": OBJECTS + "${credentials-iot:ThingName}/*",
}


def may(
    *statements: dict[str, Any],
    action: str = "s3:PutObject",
    key: str = "cam-1/x",
    thing: str = "cam-1",
) -> bool:
    variables = {"credentials-iot:ThingName": thing} if thing else {}
    return allows([{"Statement": list(statements)}], action, OBJECTS + key, variables)


def test_nothing_is_allowed_that_no_statement_allows() -> None:
    assert not may()
    assert not may(WRITE, action="s3:DeleteObject")


def test_a_variable_stands_for_its_own_value_only() -> None:
    assert may(WRITE)
    assert not may(WRITE, key="cam-10/x")
    assert not may(WRITE, key="cam-2/x")
    assert not may(WRITE, thing="", key="/x")


def test_a_name_with_wildcards_stands_for_itself() -> None:
    assert not may(WRITE, thing="cam-*", key="cam-2/x")
    assert may(WRITE, thing="cam-*", key="cam-*/x")


def test_wildcards_in_actions_match() -> None:
    assert may(WRITE, action="s3:GetObject")
    assert not may(WRITE, action="s3:PutObjectAcl")


def test_a_deny_wins_over_every_allow() -> None:
    deny = {**WRITE, "Effect": "Deny", "Resource": "*"}
    assert not may(WRITE, deny)
    assert not may(deny, WRITE)


def test_what_is_not_judged_is_refused_not_passed_over() -> None:
    with pytest.raises(NotImplementedError, match="Condition"):
        may({**WRITE, "Condition": {}})
