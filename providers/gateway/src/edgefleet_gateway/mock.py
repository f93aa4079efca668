"""The mock of plain Linux machines: real gateways over TLS on loopback, and real runtimes.

There is no vendor to stand in for: gateways, authority, certificates and the channel are the real
ones. What is played are the machines, which have no systemd and no disk of their own. It stands on
another mock, which keeps models, state and events: ``edgefleet mock gateway,local …``.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

from edgefleet.errors import ConfigurationError, NotFoundError
from edgefleet.plugins.provider import Role
from edgefleet.profile import load_profile
from edgefleet.protocol.documents import decode
from edgefleet.services import Services
from edgefleet.testing.cloud.keeping import Keeper, Place
from edgefleet.testing.cloud.ports import HeldPort
from edgefleet.testing.cloud.refusals import made_of_extra, not_running
from edgefleet.testing.mock import PROFILE, MockCloud
from edgefleet_gateway.cloud.machine import Machine, Told
from edgefleet_gateway.records import AuthorityRecord, Keys
from edgefleet_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefleet.profile import Profile
    from edgefleet_gateway.deployer import GatewayDeployer

VENDOR = "plain Linux machines"
LOOK_S = 0.05  # so that scripts and tests needn't wait
WAIT_S = 5.0
POLL_S = 0.2
_STANDS_ON = ("registry", "telemetry", "state")


class GatewayMock(MockCloud):
    """Gateways and machines on this one.

    Args:
        state: folder for what it keeps.
        gateways: how many run; devices know all of them and ask the first that answers.
    """

    name: ClassVar[str] = "gateway"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.DEPLOYER})
    writes_elsewhere: ClassVar[bool] = True
    operates: ClassVar[bool] = True

    def __init__(self, state: Path, *, gateways: int = 1) -> None:
        super().__init__(state)
        self._count = gateways
        self._keeper = Keeper(state / "cloud.json")
        self._ports: list[HeldPort] = []
        self._services: Services | None = None
        self._serving: dict[int, ExitStack] = {}
        self._machines: dict[str, Machine] = {}

    def start(self) -> None:
        """Choose ports, or take those of before; gateways start once their profile is written."""
        if self._ports:
            return
        place = Place({"ports": []})
        self._keeper.restore({"place": place})
        kept = list(place.told["ports"])[: self._count]
        self._ports = [HeldPort(port) for port in kept + [0] * (self._count - len(kept))]

    def profile_written(self, config: Path) -> None:
        """Serve the session's fleet, and start the machines that were kept."""
        self.serve(load_profile(PROFILE, config=config))

    def serve(self, profile: Profile) -> None:
        """Serve a profile's fleet, and start the machines that were kept.

        Raises:
            MissingExtraError: what gateways are made of isn't installed.
            ConfigurationError: nobody keeps the fleet's models, state or events.
        """
        lacking = [role for role in _STANDS_ON if not (getattr(profile, role) or profile.provider)]
        if lacking:
            raise ConfigurationError(
                f"the mock of {VENDOR} has no {', '.join(lacking)} of its own",
                cure="name a mock beside it that has: edgefleet mock gateway,local",
            )
        self._services = Services(profile)
        for number in range(self._count):
            self.start_gateway(number)
        for folder in sorted((self.state / "machines").glob("*")):
            machine = self._machines[folder.name] = Machine(folder, folder.name)
            if machine.is_switched_on:
                machine.start()

    def stop(self) -> None:
        """End machines and gateways, and keep their ports."""
        for machine in self._machines.values():
            machine.ask_to_end()
        for machine in self._machines.values():
            machine.shut_down()
        self._machines.clear()
        for number in list(self._serving):
            self.stop_gateway(number)
        if self._services is not None:
            self._services.close()
            self._services = None
        if self._ports:
            self._keeper.save({"place": Place({"ports": [port.number for port in self._ports]})})
            for port in self._ports:
                port.close()
            self._ports = []

    def start_gateway(self, number: int = 0) -> None:
        """Start a gateway, on the port that it had; no error where it runs."""
        with made_of_extra(VENDOR, "edgefleet-gateway"):
            from edgefleet_gateway.server import (  # noqa: PLC0415 - the extra may be missing
                assembly,
                running,
            )
        if number in self._serving:
            return
        folder = self.state / f"gateway-{number}"
        parts = assembly.assemble(self.services)
        options = running.Options(
            port=self._ports[number].number,
            scratch=folder / "scratch",
            audit_log=self._audit(number),
        )
        material = assembly.own_certificate(parts, options.host)
        with ExitStack() as stack:
            stack.enter_context(
                running.serve_in_thread(parts.backends, parts.settings, material, options)
            )
            self._serving[number] = stack.pop_all()

    def stop_gateway(self, number: int = 0) -> None:
        """Stop a gateway in order; devices go on with the others, or serve what they have."""
        serving = self._serving.pop(number, None)
        if serving is not None:
            serving.close()

    @property
    def services(self) -> Services:
        """What its gateways stand before.

        Raises:
            ConfigurationError: no profile was given to it yet.
        """
        if self._services is None:
            raise not_running(VENDOR)
        return self._services

    @property
    def environment(self) -> dict[str, str]:
        """Nothing: whoever uses the profile finds all in it."""
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """Where gateways are and where their keys lie; devices and gateways don't dawdle."""
        if not self._ports:
            raise not_running(VENDOR)
        return {
            "addresses": [f"https://localhost:{port.number}" for port in self._ports],
            "authority": str((self.state / "authority").absolute()),
            "look_s": LOOK_S,
            "longest_wait_s": WAIT_S,
            "poll_s": POLL_S,
        }

    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Invite a device, have it show its token and start its runtime."""
        self.join(name, group=group, labels=labels)
        self.machine(name).start()

    def join(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Invite a device and have it show its token; its runtime is left as it is.

        A machine that has joined already takes its own place.
        """
        known = self._machines.get(name)
        machine = known or Machine(self.state / "machines" / name, name)
        invited = self._deployer.invite(name, group=group, labels=labels, replace=known is not None)
        pins = ";".join(f"sha256//{pin}" for pin in self.pins())
        machine.join(Told(self.settings["addresses"][0], pins, invited.token), labels or {})
        self._machines[name] = machine

    def pins(self) -> tuple[str, ...]:
        """Of the public keys of its gateways, base64; a machine that joins is told them."""
        key = Keys(GatewaySettings(**self.settings).prefix).authority
        stored = self.services.state.read(key)
        return () if stored is None else decode(AuthorityRecord, stored.data).pins

    def kill_device(self, name: str) -> None:
        """Cut a machine's power: its runtime is killed; its disk stays."""
        self.machine(name).cut()

    def start_device(self, name: str) -> None:
        """Give a machine its power back."""
        self.machine(name).start()

    def machine(self, name: str) -> Machine:
        """One of the machines.

        Raises:
            NotFoundError: the mock has none of that name.
        """
        found = self._machines.get(name)
        if found is None:
            raise NotFoundError(f"the mock has no device {name!r}")
        return found

    def seen(self) -> Iterator[str]:
        """The audit logs of its gateways: requests that changed something or were refused."""
        for number in range(self._count):
            path = self._audit(number)
            if path.exists():
                yield from path.read_text(encoding="utf-8").splitlines()

    @property
    def _deployer(self) -> GatewayDeployer:
        from edgefleet_gateway.deployer import GatewayDeployer  # noqa: PLC0415 - likewise

        found = self.services.deployers[self.name]
        if not isinstance(found, GatewayDeployer):
            raise ConfigurationError(f"another plugin serves the deployer {self.name!r}")
        return found

    def _audit(self, number: int) -> Path:
        return self.state / f"gateway-{number}" / "audit.jsonl"
