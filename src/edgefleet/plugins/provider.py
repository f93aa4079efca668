"""What a plugin offers: services for some of the roles, built when they are asked for.

Import the vendor's SDK inside the factory methods, never at the top of ``plugin.py``: naming a
provider must cost nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edgefleet.errors import ProfileError, UnsupportedError
from edgefleet.protocol.pointer import check_source

if TYPE_CHECKING:
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.pricing import Prices
    from edgefleet.interfaces.registry import Registry
    from edgefleet.interfaces.state import StateStore
    from edgefleet.interfaces.telemetry import Telemetry
    from edgefleet.interfaces.trainer import Trainer


class Role(StrEnum):
    """What a provider can serve in a profile."""

    REGISTRY = "registry"
    TRAINER = "trainer"
    DEPLOYER = "deployer"
    TELEMETRY = "telemetry"
    STATE = "state"


class ProviderSettings(BaseModel):
    """Base of a provider's settings, read from ``[profiles.<name>.<provider>]``.

    Attributes:
        prefix: below this everything of the fleet lies, so that fleets share an account.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    prefix: str = Field(default="edgefleet", pattern=r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$")


class RemoteSettings(ProviderSettings):
    """Base of the settings of a provider whose services are reached over a network.

    Attributes:
        mirrors: more addresses below which devices find the registry's blobs, such as a CDN's or a
            plant's cache. They travel in pointers, so they carry no secret.
        max_attempts: tries of each call, the first included; waits between them grow, with jitter.
    """

    provider: ClassVar[str]
    """The provider's name, which is its table's in a profile."""
    mirrors: tuple[str, ...] = ()
    max_attempts: int = Field(default=8, ge=1, le=20)

    @field_validator("mirrors")
    @classmethod
    def _are_addresses(cls, mirrors: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_source(mirror) for mirror in mirrors)

    def needed(self, setting: str, what: str) -> str:
        """The value of a setting that some work can't do without.

        Args:
            setting: its name, such as ``training_image``.
            what: needs it, such as ``training``.

        Raises:
            ProfileError: the profile doesn't set it.
        """
        found = getattr(self, setting)
        if not found:
            raise ProfileError(
                f"{what} needs the setting {setting!r}, which the profile doesn't have",
                cure=f"set `{setting}` in the profile's table [… .{self.provider}]",
            )
        return str(found)


def _no_registry() -> NoReturn:
    raise ProfileError(
        "there is no registry here", cure='name one in the profile: registry = "local"'
    )


class Context(BaseModel):
    """What a service may need beside its own settings.

    Attributes:
        base: folder that relative paths in settings start from: the profile file's.
        name: name of the service in the profile; differs from the provider's where a profile names
            one provider twice.
        state: gives the profile's state store; call it only when it is needed.
        registry: gives the profile's registry, likewise.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    base: Path
    name: str
    state: Callable[[], Any]
    registry: Callable[[], Any] = _no_registry


class Provider(ABC):
    """A factory of services. Override the factory of each role in `roles`."""

    name: ClassVar[str]
    """The name used in profiles; the same as the entry point's."""
    roles: ClassVar[frozenset[Role]]
    """The roles it can serve."""

    @property
    @abstractmethod
    def settings_type(self) -> type[ProviderSettings]:
        """The model its settings are checked against."""

    def registry(self, settings: Any, context: Context) -> Registry:  # noqa: ANN401
        """Build the registry."""
        raise self._lacks(Role.REGISTRY)

    def trainer(self, settings: Any, context: Context) -> Trainer:  # noqa: ANN401
        """Build the trainer."""
        raise self._lacks(Role.TRAINER)

    def deployer(self, settings: Any, context: Context) -> Deployer:  # noqa: ANN401
        """Build a deployer."""
        raise self._lacks(Role.DEPLOYER)

    def telemetry(self, settings: Any, context: Context) -> Telemetry:  # noqa: ANN401
        """Build the telemetry reader."""
        raise self._lacks(Role.TELEMETRY)

    def state(self, settings: Any, context: Context) -> StateStore:  # noqa: ANN401
        """Build the state store."""
        raise self._lacks(Role.STATE)

    def prices(self) -> Prices | None:
        """What its services cost, for a bill in advance; None where that isn't known."""
        return None

    def _lacks(self, role: Role) -> UnsupportedError:
        has = ", ".join(sorted(self.roles))
        return UnsupportedError(
            f"provider {self.name!r} has no {role.value}",
            cure=f"it serves {has}; name another provider for {role.value} in the profile",
            provider=self.name,
        )
