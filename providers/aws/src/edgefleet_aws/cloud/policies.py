"""What IAM and IoT policies allow: as much of their language as least privilege needs.

Statements with Effect, Action and Resource, wildcards and policy variables; a Deny wins over every
Allow (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html).
What it doesn't know, such as a Condition, it refuses to judge rather than to pass over.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_KNOWN = {"Sid", "Effect", "Action", "Resource"}
_VARIABLE = re.compile(r"\$\{([^}]+)\}")


def allows(
    documents: Iterable[Mapping[str, Any]],
    action: str,
    resource: str,
    variables: Mapping[str, str],
) -> bool:
    """Whether policies together let somebody do something.

    Args:
        documents: the policies.
        action: such as ``s3:PutObject``.
        resource: its ARN.
        variables: values of policy variables, such as ``credentials-iot:ThingName``.

    Raises:
        NotImplementedError: a statement has a part that isn't judged here.
    """
    allowed = False
    for document in documents:
        for statement in _listed(document.get("Statement", ())):
            unknown = statement.keys() - _KNOWN
            if unknown:
                raise NotImplementedError(f"policies with {', '.join(sorted(unknown))}")
            if not (
                any(_fits(action, one, {}) for one in _listed(statement["Action"]))
                and any(_fits(resource, one, variables) for one in _listed(statement["Resource"]))
            ):
                continue
            if statement["Effect"] == "Deny":
                return False
            allowed = True
    return allowed


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 - JSON
    return list(value) if isinstance(value, list | tuple) else [value]


def _fits(value: str, pattern: str, variables: Mapping[str, str]) -> bool:
    """Whether a pattern with ``*`` and ``?`` matches; of a variable without value nothing does."""
    parts: list[str] = []
    start = 0
    for found in _VARIABLE.finditer(pattern):
        if found[1] not in variables:
            return False
        parts += (_expression(pattern[start : found.start()]), re.escape(variables[found[1]]))
        start = found.end()
    parts.append(_expression(pattern[start:]))
    return re.fullmatch("".join(parts), value, re.DOTALL) is not None


def _expression(text: str) -> str:
    return re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")
