"""What stands in the mock of Azure before anybody calls: its hosts, each a port of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.testing.cloud.authority import Authority
from edgefleet.testing.cloud.front import Front, Journal
from edgefleet_azure.cloud.accounts import StorageAccount
from edgefleet_azure.cloud.authorization import guard
from edgefleet_azure.cloud.blob import BlobService
from edgefleet_azure.cloud.calls import arm_error, blob_error, hub_error
from edgefleet_azure.cloud.eventhubs import EventHubs
from edgefleet_azure.cloud.hub_service import HubService
from edgefleet_azure.cloud.identity import Identities
from edgefleet_azure.cloud.management import Management, MockHub, hub_key
from edgefleet_azure.cloud.ml_registry import ModelRegistry
from edgefleet_azure.cloud.ml_service import CALLER, AzureMl
from edgefleet_azure.cloud.ml_storage import MlStorage
from edgefleet_azure.cloud.server import App
from edgefleet_azure.cloud.shared_keys import key_check
from edgefleet_azure.provisioning import AUDIENCE as DPS_AUDIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from edgefleet.testing.cloud.calls import Refused, Reply
    from edgefleet.testing.cloud.keeping import Part
    from edgefleet.testing.cloud.rules import Rules
    from edgefleet_azure.cloud.calls import Call
    from edgefleet_azure.cloud.server import Mount

ARM_AUDIENCES = ("https://management.azure.com", "https://management.core.windows.net")
ML_AUDIENCE = "https://ml.azure.com"
HUB_AUDIENCE = "https://iothubs.azure.net"
READERS = ("iothubowner", "service")
"""Policies of a hub whose keys open its Event Hubs-compatible endpoint."""


class Stage:
    """The mock cloud as a whole.

    Args:
        rules: faults to inject.
        folder: for what is kept, and certificates.
        account: name of the storage account.
        group: resource id of the resource group.
        workspace: name of the Azure ML workspace.
        registry: name of the shared registry of Azure ML.
        given: gives the environment that jobs run with.
        hubs: names of the hosts of IoT Hubs, such as ``hub-1``.
        hierarchical: whether the storage account has a hierarchical namespace.

    Attributes:
        authority: makes certificates for every host.
        identities: who may call.
        journal: what was called.
        storage: the storage account.
        management: Azure Resource Manager, and the provisioning service.
        ml: the workspace.
        shared: a shared registry of Azure ML, in another subscription.
        parts: what goes on where it was.
    """

    def __init__(
        self,
        rules: Rules,
        folder: Path,
        *,
        account: str,
        group: str,
        workspace: str,
        registry: str,
        given: Callable[[], Mapping[str, str]],
        hubs: tuple[str, ...] = ("hub-1",),
        hierarchical: bool = False,
    ) -> None:
        self._rules = rules
        self.folder = folder
        self.authority = Authority(folder / "authority", vendor="Azure")
        self.identities = Identities()
        self.journal = Journal()
        self._apps: dict[str, App] = {}
        self._fronts: dict[str, Front] = {}
        self.hubs = hubs
        self.storage = StorageAccount(account, folder / "blobs", hierarchical=hierarchical)
        self.parts: dict[str, Part] = {"identities": self.identities, "storage": self.storage}
        self.add_host("identity", admit=_nobody, plain=True)
        self.management = Management(
            self.identities,
            self.storage,
            group,
            hubs=self._hubs_by_host,
            provisioning_host=lambda: self.authority_of("dps"),
        )
        self.add_host("arm", admit=guard(self._admit_to_arm, self.management.of_arm))
        self.add_host("blob", admit=_nobody, refuse=blob_error)
        for hub in hubs:
            admit = guard(self.identities.admit(HUB_AUDIENCE), self.management.of_hub)
            self.add_host(hub, admit=admit, refuse=hub_error)
        admit = guard(self.identities.admit(DPS_AUDIENCE), self.management.of_provisioning)
        self.add_host("dps", admit=admit)
        self.iot_hubs = {hub: HubService() for hub in hubs}
        """Each IoT Hub, by its name."""
        for hub, service in self.iot_hubs.items():
            self.mount(hub, service)
            self.parts[f"hub {hub}"] = service
        self.mount("identity", self.identities)
        self.ml = AzureMl(
            folder / "jobs",
            MlStorage(self.storage, lambda: self.url("blob")),
            given,
            group=group,
            name=workspace,
        )
        self.mount("arm", self.ml)  # first: Azure Resource Manager's own routes fit everything
        self.shared = ModelRegistry(
            registry,
            StorageAccount(f"{account}r", folder / "registry-blobs"),
            lambda: self.url("registry-blob"),
            CALLER,
        )
        self.mount("arm", self.shared)
        self.mount("arm", self.management.deployments)
        self.mount("dps", self.management.provisioning)
        self.parts |= {"management": self.management, "ml": self.ml, "shared": self.shared}
        self.mount("blob", BlobService(self.storage, self.identities))
        self.add_host("registry-blob", admit=_nobody, refuse=blob_error, below=f"{account}r")
        self.mount("registry-blob", BlobService(self.shared.storage, self.identities))

        self.events = {hub: self._events_of(hub) for hub in hubs}
        """Each IoT Hub's Event Hubs-compatible endpoint, by the hub's name."""
        self.parts |= {f"events {hub}": events for hub, events in self.events.items()}

    def _events_of(self, hub: str) -> EventHubs:
        admits = key_check({policy: hub_key(hub, policy) for policy in READERS})
        found = EventHubs(
            hub,
            tls=self.authority.context(),
            admits=admits,
            partitions=2,
            groups=lambda: self.management.consumers(self.authority_of(hub)),
        )
        self.iot_hubs[hub].state.on_message(
            lambda sent: found.append(sent.device, sent.module, sent.properties, sent.body)
        )
        return found

    def _hubs_by_host(self) -> dict[str, MockHub]:
        return {
            self.authority_of(name): MockHub(name, one.state, self.events[name])
            for name, one in self.iot_hubs.items()
        }

    def add_host(
        self,
        name: str,
        *,
        admit: Callable[[Call], None],
        refuse: Callable[[Refused], Reply] = arm_error,
        plain: bool = False,
        below: str = "",
    ) -> None:
        """Have another host; it listens when the stage is opened.

        Args:
            name: of it, for `mount` and `url`.
            admit: finds out who calls.
            refuse: how it says no.
            plain: speaks HTTP without TLS.
            below: storage account that the whole host is, as real ones are.
        """
        app = App(name, rules=self._rules, journal=self.journal, admit=admit, refuse=refuse)
        tls = None if plain else self.authority.context()
        self._apps[name] = app
        answers = _below(below, app) if below else app
        self._fronts[name] = Front(f"mock-azure-{name}", answers, tls=tls)

    def mount(self, host: str, mount: Mount) -> None:
        """Have a service answered on a host.

        Args:
            host: ``arm`` (Azure ML's own addresses too), ``blob``, ``identity`` or a hub's name.
            mount: the service.
        """
        self._apps[host].mount(mount)

    @property
    def running(self) -> bool:
        """Whether the cloud can be called."""
        return self._fronts["arm"].running

    def url(self, host: str) -> str:
        """Where a host can be called, without a slash at the end."""
        return self._fronts[host].url

    def authority_of(self, host: str) -> str:
        """A host's name with its port, as a URL has it."""
        return self.url(host).partition("://")[2]

    @property
    def ports(self) -> dict[str, int]:
        """Port of each host."""
        return {name: front.port for name, front in self._fronts.items()}

    def open(self, ports: Mapping[str, int] | None = None) -> None:
        """Listen.

        Args:
            ports: that hosts had before, taken again where they are free.
        """
        for name, front in self._fronts.items():
            front.start((ports or {}).get(name, 0))
        for events in self.events.values():
            events.start()

    def end_jobs(self) -> None:
        """End what trains, and return when nothing does."""
        self.ml.close()

    def close(self) -> None:
        """End what trains, and stop listening; may be called twice."""
        self.end_jobs()
        for events in self.events.values():
            events.stop()
        for front in self._fronts.values():
            front.stop()

    def seen(self) -> Iterator[str]:
        """A line a call, oldest first."""
        return self.journal.lines()

    def _admit_to_arm(self, call: Call) -> None:
        # Azure ML's services for runs and logs lie on the same host, under a token of their own.
        audiences = (*ARM_AUDIENCES, self.url("arm"), ML_AUDIENCE)
        call.principal = self.identities.holder(call, audiences)


def _nobody(call: Call) -> None:
    """Nobody is held up: the service asks for something else than a token, or for more."""


def _below(account: str, app: WSGIApplication) -> WSGIApplication:
    """A host that is one storage account: addresses there don't name it."""

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return app({**environ, **_prefixed(account, environ)}, start)

    return answer


def _prefixed(account: str, environ: WSGIEnvironment) -> dict[str, str]:
    paths = {name: str(environ[name]) for name in ("PATH_INFO", "RAW_URI") if environ.get(name)}
    return {name: f"/{account}{path}" for name, path in paths.items()}
