"""Whether a plugin's provider, and what it builds, are as their base classes say.

Asked once where they are taken in, so that a plugin's mistake is told as one, by name, and not as
whatever it breaks later.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from edgefleet.plugins.provider import Provider, ProviderSettings, Role

if TYPE_CHECKING:
    from edgefleet.interfaces.service import Service
    from edgefleet.plugins.provider import Context


def problem_of(provider: Provider, entry: str) -> str | None:
    """What of a provider isn't as `Provider` says; None where all is.

    Args:
        provider: as its hook gave it.
        entry: name of its entry point.
    """
    kind = type(provider)
    name, roles = getattr(provider, "name", None), getattr(provider, "roles", None)
    if name != entry:
        return f"calls itself {name!r}: {kind.__name__}.name is to be its entry point's name"
    if (
        not isinstance(roles, AbstractSet)
        or not roles
        or not all(isinstance(r, Role) for r in roles)
    ):
        return f"has no roles: {kind.__name__}.roles is to be a frozenset of Role, not {roles!r}"
    for role in sorted(roles):
        if getattr(kind, role.value) is getattr(Provider, role.value):
            return f"has the role {role.value}, but {kind.__name__} has no method {role.value}"
    try:
        settings: object = provider.settings_type
    except Exception as error:  # noqa: BLE001 - a plugin may fail in any way
        return f"fails to give its settings_type: {type(error).__name__}: {error}"
    if not (isinstance(settings, type) and issubclass(settings, ProviderSettings)):
        return f"has a settings_type that is no ProviderSettings: {settings!r}"
    return None


def problem_of_service(service: Service, role: Role, context: Context) -> str | None:
    """What of a service isn't as its role says; None where all is."""
    kind = type(service).__name__
    if getattr(service, "role", None) != role.value:
        return f"gives no {role.value}, but {kind}"
    if not isinstance(getattr(service, "provider", None), str):
        return f"gives a {role.value} that names no provider: set {kind}.provider"
    if role is Role.DEPLOYER and (name := getattr(service, "name", None)) != context.name:
        return f"gives a deployer named {name!r}: {kind}.name is to be Context.name"
    return None
