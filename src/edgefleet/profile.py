"""Profiles: which plugin serves which role, with which settings.

``edgefleet.toml``:

.. code-block:: toml

    [profiles.default]
    provider = "local"  # serves every role that isn't named

    [profiles.plant-a]
    registry = "aws"
    trainer = "aws"
    deployers = ["aws", "kubernetes"]
    telemetry = "aws"
    state = "aws"
    require_approval = true

    [profiles.plant-a.aws]  # the provider's own settings
    bucket = "plant-a-models"

The file is the one that EDGEFLEET_CONFIG names, else ``edgefleet.toml`` in this folder or one above
it, else the user's (``~/.config/edgefleet/edgefleet.toml``). Without any, the default profile is
the embedded local provider in ``.edgefleet`` in this folder.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edgefleet.errors import InvalidInputError, ProfileError
from edgefleet.plugins.discovery import POLICIES, PROVIDERS, Listener
from edgefleet.policy_files import policy_of
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.policy_problems import check_policy

CONFIG_VARIABLE = "EDGEFLEET_CONFIG"
PROFILE_VARIABLE = "EDGEFLEET_PROFILE"
FILE_NAME = "edgefleet.toml"
DEFAULT = "default"
_SAID = {
    "extra_forbidden": "there is no such key",
    "tuple_type": 'it is a list: write ["…"]',
}
"""What pydantic says in Python's words, by its type."""
_ROLES = ("registry", "trainer", "telemetry", "state")


class Profile(BaseModel):
    """A profile as the file has it.

    Attributes:
        provider: serves every role that isn't named on its own.
        registry: provider of the registry; likewise ``trainer``, ``telemetry``, ``state``.
        deployers: providers of the deployers; a group is ``deployer/name``.
        require_approval: only approved versions deploy.
        policies: plugins that are no providers but are asked before and told after a deployment.
        recorded: the telemetry policy that a group begins with: a deployment of a model gives it
            to a group that has none yet. `Fleet.record` gives another. Its fields are those of
            `edgefleet.protocol.policy.TelemetryPolicy`.
        settings: each provider's own table.
        name: of the profile.
        base: folder that relative paths start from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    name: str
    base: Path
    provider: str | None = None
    registry: str | None = None
    trainer: str | None = None
    deployers: tuple[str, ...] = ()
    telemetry: str | None = None
    state: str | None = None
    require_approval: bool = False
    policies: tuple[str, ...] = ()
    recorded: TelemetryPolicy | None = None
    settings: dict[str, dict[str, Any]] = {}

    def provider_of(self, role: str) -> str:
        """Name of the provider that serves a role.

        Raises:
            ProfileError: the profile names none.
        """
        named: str | None = getattr(self, role) or self.provider
        if named is None:
            msg = f"profile {self.name!r} names no provider for {role}"
            cure = f'add  {role} = "…"  or  provider = "…"  to [profiles.{self.name}]'
            raise ProfileError(msg, cure=cure)
        return named

    def deployer_names(self) -> tuple[str, ...]:
        """Names of the deployers; none when the profile only trains or stores."""
        if self.deployers:
            return self.deployers
        return (self.provider,) if self.provider else ()

    def plugins(self) -> tuple[str, ...]:
        """Every provider the profile names, each once."""
        named = [self.provider, *(getattr(self, role) for role in _ROLES), *self.deployers]
        return tuple(dict.fromkeys(name for name in named if name))

    def listeners(self) -> tuple[Listener, ...]:
        """Every plugin that hears of deployments: the providers, then the policies."""
        return (
            *((PROVIDERS, name) for name in self.plugins()),
            *((POLICIES, name) for name in self.policies),
        )


def config_file() -> Path | None:
    """The configuration file in effect; None when there is none.

    Raises:
        ProfileError: EDGEFLEET_CONFIG names a file that isn't there.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            msg = f"{CONFIG_VARIABLE} names {path}, which is no file"
            raise ProfileError(msg, cure=f"unset {CONFIG_VARIABLE}, or write one: edgefleet init")
        return path.absolute()
    here = Path.cwd()
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgefleet"
    folders = [here, *here.parents, user]
    return next((f / FILE_NAME for f in folders if (f / FILE_NAME).is_file()), None)


def load_profile(name: str | None = None, *, config: Path | None = None) -> Profile:
    """The profile of that name, of EDGEFLEET_PROFILE, or the default one.

    Raises:
        ProfileError: no such profile, or something in it is wrong; the message names the line's
            key.
    """
    asked = name or os.environ.get(PROFILE_VARIABLE)
    path = config or config_file()
    if path is None:
        if asked not in (None, DEFAULT):
            msg = f"no profile {asked!r}: there is no {FILE_NAME} in this folder or above it"
            raise ProfileError(msg, cure="write one with: edgefleet init")
        return Profile(name=DEFAULT, base=Path.cwd(), provider="local")
    tables = _read(path)
    wanted = asked or (DEFAULT if DEFAULT in tables or len(tables) != 1 else next(iter(tables)))
    if wanted not in tables:
        there = ", ".join(tables) or "none"
        msg = f"no profile {wanted!r} in {path}"
        raise ProfileError(msg, cure=f"profiles there are: {there}")
    return _build(wanted, tables[wanted], path)


def profile_names(config: Path | None = None) -> tuple[str, ...]:
    """Names of all profiles in the file in effect."""
    path = config or config_file()
    return (DEFAULT,) if path is None else tuple(_read(path))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is no valid TOML: {error}"
        raise ProfileError(msg, cure="mend the line it names") from error
    tables = content.get("profiles")
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        msg = f"{path} has no [profiles.<name>] table"
        raise ProfileError(msg, cure="write one with: edgefleet init")
    return tables


def _build(name: str, table: dict[str, Any], path: Path) -> Profile:
    fields = set(Profile.model_fields) - {"name", "base", "settings"}
    own = {key: value for key, value in table.items() if key in fields}
    settings = {k: v for k, v in table.items() if k not in fields and isinstance(v, dict)}
    stray = [key for key in table if key not in own and key not in settings]
    if stray:
        msg = f"{path}: [profiles.{name}] has no key {stray[0]!r}"
        raise ProfileError(msg, cure=f"keys there are: {', '.join(sorted(fields))}")
    where = f"{path}: [profiles.{name}"
    if isinstance(own.get("recorded"), dict):
        own["recorded"] = _recorded(own["recorded"], f"{where}.recorded]")
    try:
        profile = Profile(name=name, base=path.parent, settings=settings, **own)
    except ValidationError as error:
        raise ProfileError(
            f"{path}: [profiles.{name}]: {first_problem(error)}", cure="mend that key"
        ) from error
    unused = [key for key in settings if key not in profile.plugins()]
    if unused:
        msg = f"{path}: [profiles.{name}.{unused[0]}] belongs to no provider of the profile"
        raise ProfileError(msg, cure=f"its providers are: {', '.join(profile.plugins())}")
    return profile


def _recorded(table: dict[str, Any], where: str) -> TelemetryPolicy:
    try:
        policy = policy_of(table, where)
        check_policy(policy)
    except InvalidInputError as error:
        message = error.message if error.message.startswith(where) else f"{where}: {error.message}"
        raise ProfileError(message, cure=error.cure) from error
    return policy


def first_problem(error: ValidationError) -> str:
    """The first problem of a validation error as ``key: what is wrong``, without values."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    said = _SAID.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{where}: {said}" if where else said
