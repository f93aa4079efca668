"""Mock clouds: what a provider's stand-in for its vendor is, and how a session of some is run.

A mock cloud is stateful, refuses what the vendor refuses, and runs the real device runtime.
Entry-point
group ``edgefleet.mocks``. A user's script runs against it unchanged: the session writes a profile
whose roles all lie on the mocks and names it in EDGEFLEET_CONFIG and EDGEFLEET_PROFILE.

Clouds of one session know each other: devices of one read what another holds. Each cloud has an
authority of its own, and every bundle of the session holds them all, so that it doesn't matter
whose bundle a process is told to trust.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from edgefleet.errors import ConfigurationError
from edgefleet.plugins.discovery import MOCKS, load, unusable
from edgefleet.plugins.provider import Role
from edgefleet.profile import CONFIG_VARIABLE, PROFILE_VARIABLE
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgefleet.fleet import Fleet
    from edgefleet.testing.cloud.authority import Authority

PROFILE = "mock"
FAST_TELEMETRY = {"segment_max_age_s": 0.2, "heartbeat_s": 2.0}
"""Devices on a mock send at once, so that scripts and tests needn't wait a minute."""


class Borrowed(NamedTuple):
    """What a cloud's devices get of the session's other clouds.

    Attributes:
        variables: of their environment, where they have none of that name.
        segments: address below which they write what they record, where another cloud reads it;
            None where their own does.
    """

    variables: Mapping[str, str] = MappingProxyType({})
    segments: str | None = None


class MockCloud(ABC):
    """A stand-in for one vendor. Subclasses take ``state`` only; nothing runs before `start`.

    Args:
        state: an existing folder for whatever the mock keeps; a mock started again on it goes on.

    Attributes:
        borrowed: what its devices get of other clouds; a session sets it before it adds devices.
    """

    name: ClassVar[str]
    """Name of the provider that it stands in for."""
    roles: ClassVar[frozenset[Role]]
    """Roles that a profile may put on it."""
    writes_elsewhere: ClassVar[bool] = False
    """Whether its devices write what they record where another cloud reads it."""
    operates: ClassVar[bool] = False
    """Whether it works on the session's other clouds, in this process. That then has the session's
    environment as long as the session lasts."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.borrowed = Borrowed()

    @abstractmethod
    def start(self) -> None:
        """Start servers, on loopback only."""

    @abstractmethod
    def stop(self) -> None:
        """Stop servers and devices; nothing is left running. May be called twice."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Variables that the vendor's own SDK reads to find the mock and throw-away credentials."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The provider's table of the generated profile."""

    def profile_written(self, config: Path) -> None:  # noqa: B027 - most stand for themselves
        """Start what stands on the session's other clouds; called once all of them run.

        No device was added yet. Set `operates` to find the session's environment in place.

        Args:
            config: the session's ``edgefleet.toml``; its profile is `PROFILE`.
        """

    @property
    def authority(self) -> Authority | None:
        """What the bundle is of that the environment of the running mock names; None for none."""
        return None

    @property
    def lent(self) -> dict[str, str]:
        """Variables with which devices of other clouds read what this running one holds."""
        return {}

    @property
    def segments(self) -> str | None:
        """Address below which devices of other clouds may write what they record, to be read here.

        None where only the cloud's own devices can.
        """
        return None

    @abstractmethod
    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Add a device with a real runtime to a group and start it."""

    @abstractmethod
    def kill_device(self, name: str) -> None:
        """End a device's runtime as a power cut would; its disk stays."""

    @abstractmethod
    def start_device(self, name: str) -> None:
        """Power a device on again."""

    @abstractmethod
    def seen(self) -> Iterator[str]:
        """What the cloud saw, a line a call, oldest first."""


def without_proxy() -> dict[str, str]:
    """Variables that have clients call this machine without a proxy."""
    before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    known = [one for one in before.split(",") if one]
    wanted = ",".join([*known, *(one for one in ("localhost", "127.0.0.1") if one not in known)])
    return {"NO_PROXY": wanted, "no_proxy": wanted}


class MockSession:
    """One or more mock clouds and the profile that uses them.

    Attributes:
        config: the generated ``edgefleet.toml``.
        environment: what a script needs to run against the mocks.
    """

    def __init__(self, clouds: Sequence[MockCloud], config: Path) -> None:
        self.clouds = tuple(clouds)
        self.config = config
        self.environment: dict[str, str] = {
            CONFIG_VARIABLE: str(config),
            PROFILE_VARIABLE: PROFILE,
        }
        for cloud in clouds:
            self.environment.update(cloud.environment)

    def cloud(self, role: Role) -> MockCloud:
        """The first of the clouds that serves a role.

        Raises:
            ConfigurationError: none does.
        """
        for cloud in self.clouds:
            if role in cloud.roles:
                return cloud
        names = ", ".join(cloud.name for cloud in self.clouds)
        msg = f"none of the mock clouds {names} serves {role.value}"
        raise ConfigurationError(msg, cure="add one that does: edgefleet mock P1,P2 …")

    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Add a device to a group, on the first cloud that deploys.

        What it reads may lie in another of the clouds: it is started with what they lend.
        """
        cloud = self.cloud(Role.DEPLOYER)
        with _environment(cloud.borrowed.variables):
            cloud.add_device(name, group=group, labels=labels)

    def kill_device(self, name: str) -> None:
        """End a device's runtime as a power cut would."""
        self.cloud(Role.DEPLOYER).kill_device(name)

    def start_device(self, name: str) -> None:
        """Power a device on again."""
        cloud = self.cloud(Role.DEPLOYER)
        with _environment(cloud.borrowed.variables):
            cloud.start_device(name)

    @contextmanager
    def connect(self) -> Iterator[Fleet]:
        """A fleet on the mocks, with the environment in place while the block runs."""
        from edgefleet.fleet import connect

        with _environment(self.environment):
            fleet = connect(PROFILE, config=self.config)
            try:
                yield fleet
            finally:
                fleet.close()


@contextmanager
def mock(
    *names: str, devices: int = 0, group: str = "edge", state: Path | None = None
) -> Iterator[MockSession]:
    """Run mock clouds while the block runs.

    Args:
        names: providers to stand in for; each role goes to the first that serves it, deployers to
            all. Telemetry goes to the first that some device writes to.
        devices: how many devices ``dev-01``, … to put into the group.
        group: its name.
        state: folder to keep; None for a temporary one that is removed.

    Raises:
        ProviderNotFoundError: no mock of a name is installed.
        PluginImportError: one is, and can't be used.
    """
    check_name("group", group)
    kept = state is not None
    folder = state if state is not None else Path(tempfile.mkdtemp(prefix="edgefleet-mock-"))
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if not kept:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        clouds: list[MockCloud] = []
        for name in names:
            place = folder / name
            place.mkdir(exist_ok=True)
            clouds.append(_cloud(name, place))
        _start(clouds, stack)
        config = folder / "edgefleet.toml"
        config.write_text(_profile(clouds), encoding="utf-8")
        session = MockSession(clouds, config)
        if any(cloud.operates for cloud in clouds):
            stack.enter_context(_environment(session.environment))
        for cloud in clouds:
            cloud.profile_written(config)
        for number in range(1, devices + 1):
            session.add_device(f"dev-{number:02}", group=group)
        yield session


def _cloud(name: str, state: Path) -> MockCloud:
    """The mock cloud of a plugin.

    Raises:
        ProviderNotFoundError: none of that name is installed.
        PluginImportError: it fails to import, or is no whole MockCloud.
    """
    kind = load(name, MOCKS)
    if not (isinstance(kind, type) and issubclass(kind, MockCloud)):
        raise unusable(name, f"is no MockCloud, but {kind!r}", MOCKS)
    left = sorted(kind.__abstractmethods__)
    if left:
        raise unusable(name, f"lacks what a MockCloud needs: {', '.join(left)}", MOCKS)
    return kind(state)


def _start(clouds: Sequence[MockCloud], stack: ExitStack) -> None:
    """Start clouds, those with devices last: devices that were kept start with their cloud.

    Those with nothing else stand on the others: they start after them, and stop before.
    """
    running: list[MockCloud] = []
    for cloud in sorted(
        clouds, key=lambda one: (Role.DEPLOYER in one.roles, one.roles == {Role.DEPLOYER})
    ):
        cloud.borrowed = _borrowed(cloud, clouds, running)
        stack.callback(cloud.stop)
        with _environment(cloud.borrowed.variables):
            cloud.start()
        running.append(cloud)
    for cloud in clouds:
        cloud.borrowed = _borrowed(cloud, clouds, running)
    authorities = [cloud.authority for cloud in clouds]
    for one in authorities:
        for other in authorities:
            if one is not None and other is not None and other is not one:
                one.trust(other)


def _borrowed(
    cloud: MockCloud, clouds: Sequence[MockCloud], running: Sequence[MockCloud]
) -> Borrowed:
    """What a cloud's devices get of those that run."""
    variables: dict[str, str] = {}
    for other in running:
        if other is not cloud:
            variables |= other.lent
    reads = _telemetry(clouds)
    elsewhere = reads is not None and reads is not cloud and reads in running
    return Borrowed(variables, reads.segments if reads is not None and elsewhere else None)


def _telemetry(clouds: Sequence[MockCloud]) -> MockCloud | None:
    """The first cloud that reads what devices record and that some device writes to."""
    reading = [cloud for cloud in clouds if Role.TELEMETRY in cloud.roles]
    deploying = [cloud for cloud in clouds if Role.DEPLOYER in cloud.roles]
    anywhere = any(cloud.writes_elsewhere for cloud in deploying)
    written = [cloud for cloud in reading if anywhere or cloud in deploying]
    return next(iter([*written, *reading]), None)


def _profile(clouds: Sequence[MockCloud]) -> str:
    serving = {
        role.value: cloud.name
        for role in (Role.REGISTRY, Role.TRAINER, Role.STATE)
        for cloud in reversed(clouds)  # the first comes last, and stays
        if role in cloud.roles
    }
    telemetry = _telemetry(clouds)
    if telemetry is not None:
        serving[Role.TELEMETRY.value] = telemetry.name
    deployers = [cloud.name for cloud in clouds if Role.DEPLOYER in cloud.roles]
    lines = [f"[profiles.{PROFILE}]", *_toml({**serving, "deployers": deployers})]
    lines += [f"[profiles.{PROFILE}.recorded]", *_toml(FAST_TELEMETRY)]
    for cloud in clouds:
        if cloud.name in (*serving.values(), *deployers):  # else the profile would refuse its table
            lines += [f"[profiles.{PROFILE}.{cloud.name}]", *_toml(cloud.settings)]
    return "\n".join(lines) + "\n"


def _toml(table: Mapping[str, Any]) -> list[str]:
    """Lines of a TOML table of scalars and lists; JSON's forms of these are TOML's."""
    import json

    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
