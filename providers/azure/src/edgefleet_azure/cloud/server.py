"""A host of the mock cloud, as Azure's are: `edgefleet.testing.cloud.server` with its names."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from edgefleet.testing.cloud import server
from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_azure.cloud.calls import Call, arm_error

if TYPE_CHECKING:
    from edgefleet.testing.cloud.front import Journal
    from edgefleet.testing.cloud.rules import Rules

Route: TypeAlias = server.Route[Call]
Mount: TypeAlias = server.Mount[Call]
Handle: TypeAlias = Callable[[Call], Reply]


class App(server.App[Call]):
    """A host.

    Args:
        name: of what is called where no route fits, in the journal.
        rules: faults to inject.
        journal: where each call is written.
        admit: finds out who calls, and sets the call's principal; raises `Refused` for nobody.
        refuse: how this host says no.
    """

    def __init__(
        self,
        name: str,
        *,
        rules: Rules,
        journal: Journal,
        admit: Callable[[Call], None],
        refuse: Callable[[Refused], Reply] = arm_error,
    ) -> None:
        super().__init__(
            name,
            Call,
            rules=rules,
            journal=journal,
            admit=admit,
            refuse=refuse,
            caller=_caller,
            stamped=lambda: {"x-ms-request-id": str(uuid.uuid4())},
            any_case=True,
        )


def _caller(call: Call) -> str:
    """Who calls, for rules: ``Bearer …``, or ``sas`` for whoever shows one in the address."""
    return call.headers.get("authorization") or ("sas" if "sig" in call.query else "")
