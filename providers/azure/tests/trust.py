"""The mock's environment for a test that has no other cloud beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefleet_azure.mock import AzureMock


def environment_of(cloud: AzureMock) -> dict[str, str]:
    """What Azure's libraries read, with the mock's authority as the only one they trust.

    Each connection reads all authorities that there are, for 14 ms and more of CPU.
    """
    authority = cloud.authority
    alone = {str(authority.bundle.absolute()): str(authority.certificate.absolute())}
    return {key: alone.get(value, value) for key, value in cloud.environment.items()}
