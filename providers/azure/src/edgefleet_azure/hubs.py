"""A fleet's IoT Hubs, as what a fleet asks of them: queries by page, twins, configurations.

Everything goes through the unmodified azure-iot-hub client, whose retries honour Retry-After. Rows
of queries are read as they came: the client's model of a twin knows neither counts nor deployments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError
from edgefleet.interfaces.answers import read_answer
from edgefleet_azure.errors import status_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from edgefleet_azure.clients import Clients

MAX_DEPLOYMENTS = 100
"""Of a hub, layered ones included. IoT Hub quotas and throttling, "Device configurations"."""
PAGE = 100  # rows a page; IoT Hub may give fewer
_BAD_ETAG = 412
_THERE, _MISSING = 409, 404


def select(columns: str, source: str, condition: str, *, group_by: str = "") -> str:
    """A query in IoT Hub's language. It has no parameters: what goes in are names of ours."""
    words = ["SELECT", columns, "FROM", source, "WHERE", condition]
    return " ".join([*words, "GROUP BY", group_by] if group_by else words)


def one_of(place: str, names: Iterable[str]) -> str:
    """The condition that a place holds one of some names, none of which has a quote."""
    return f"{place} IN [{', '.join(map(repr, names))}]"


class Hub:
    """One hub.

    Args:
        clients: to reach it with.
        host: its name.
    """

    def __init__(self, clients: Clients, host: str) -> None:
        self._clients = clients
        self.host = host

    @property
    def _protocol(self) -> Any:  # noqa: ANN401 - azure-iot-hub has no types
        return self._clients.hub(self.host).protocol

    # Queries

    def query(self, text: str) -> Iterator[dict[str, Any]]:
        """Rows of a query, in order."""
        for page in self.pages(text):
            yield from page

    def pages(self, text: str) -> Iterator[list[dict[str, Any]]]:
        """Rows of a query, a page at a time."""
        from azure.iot.hub.models import QuerySpecification  # noqa: PLC0415 - Azure's, late

        token: str | None = None
        while True:
            raw = self._protocol.query.get_twins(
                QuerySpecification(query=text), token, str(PAGE), raw=True
            )
            yield read_answer(raw.response, list[dict[str, Any]])
            token = raw.response.headers.get("x-ms-continuation")
            if not token:
                return

    def count(self, source: str, condition: str) -> int:
        """How many twins a condition holds for."""
        rows = self.query(select("COUNT() AS n", source, condition))
        return next((int(row.get("n", 0)) for row in rows), 0)

    # Identities and twins

    def register(self, device: str, module: str) -> None:
        """Have an edge device with that module; those that are there stay as they are.

        Raises:
            InvalidInputError: the device is there and has no IoT Edge.
        """
        from azure.iot.hub.models import (  # noqa: PLC0415 - Azure's, late
            AuthenticationMechanism,
            Device,
            DeviceCapabilities,
            Module,
            SymmetricKey,
        )

        keys = AuthenticationMechanism(type="sas", symmetric_key=SymmetricKey())
        edge = DeviceCapabilities(iot_edge=True)
        wanted = Device(device_id=device, status="enabled", authentication=keys, capabilities=edge)
        if not self._create(self._protocol.devices.create_or_update_identity, device, wanted):
            found = self._protocol.devices.get_identity(device)
            if not (found.capabilities and found.capabilities.iot_edge):
                raise InvalidInputError(
                    f"device {device!r} has no IoT Edge",
                    cure="register it anew as an edge device: az iot hub device-identity create "
                    "--edge-enabled",
                )
        member = Module(
            device_id=device, module_id=module, managed_by="IotEdge", authentication=keys
        )
        self._create(self._protocol.modules.create_or_update_identity, device, module, member)

    @staticmethod
    def _create(create: Any, *arguments: Any) -> bool:  # noqa: ANN401 - azure-iot-hub's
        try:
            create(*arguments)
        except Exception as error:
            if status_of(error) != _THERE:
                raise
            return False
        return True

    def twin(self, device: str, module: str | None = None) -> dict[str, Any] | None:
        """A twin, fresh; None for no such device or module."""
        try:
            if module is None:
                raw = self._protocol.devices.get_twin(device, raw=True)
            else:
                raw = self._protocol.modules.get_twin(device, module, raw=True)
        except Exception as error:
            if status_of(error) == _MISSING:
                return None
            raise
        return read_answer(raw.response, dict[str, Any])

    def change_twin(
        self,
        device: str,
        patch: Mapping[str, Any],
        *,
        etag: str,
        module: str | None = None,
    ) -> bool:
        """Patch a twin; False where it is another one by now, so that nothing changed.

        Args:
            device: its name.
            patch: ``tags``, and ``properties`` with ``desired``.
            etag: that it had; ``*`` for whatever there is.
            module: name of one of the device's.
        """
        from azure.iot.hub.models import Twin, TwinProperties  # noqa: PLC0415 - Azure's, late

        properties = patch.get("properties")
        body = Twin(
            tags=patch.get("tags"),
            properties=None if properties is None else TwinProperties(**properties),
        )
        quoted = etag if etag == "*" else f'"{etag}"'
        try:
            if module is None:
                self._protocol.devices.update_twin(device, body, quoted)
            else:
                self._protocol.modules.update_twin(device, module, body, quoted)
        except Exception as error:
            if status_of(error) == _BAD_ETAG:
                return False
            raise
        return True

    def forget_module(self, device: str, module: str) -> None:
        """Delete a module's identity with its twin; no error where there is none."""
        try:
            self._protocol.modules.delete_identity(device, module, "*")
        except Exception as error:
            if status_of(error) != _MISSING:
                raise

    def invoke(
        self, device: str, module: str, method: str, payload: object, timeout_s: int
    ) -> tuple[int, Any]:
        """What a module answers to a direct method: status and payload."""
        from azure.iot.hub.models import CloudToDeviceMethod  # noqa: PLC0415 - Azure's, late

        asked = CloudToDeviceMethod(
            method_name=method,
            payload=payload,
            response_timeout_in_seconds=timeout_s,
            connect_timeout_in_seconds=0,
        )
        found = self._protocol.modules.invoke_method(device, module, asked)
        return int(found.status), found.payload

    # Configurations

    def configurations(self) -> list[dict[str, Any]]:
        """Every configuration of the hub."""
        raw = self._protocol.configuration.get_configurations(MAX_DEPLOYMENTS, raw=True)
        return read_answer(raw.response, list[dict[str, Any]])

    def configuration(self, name: str) -> dict[str, Any] | None:
        """One, with its metrics; None for none."""
        try:
            raw = self._protocol.configuration.get(name, raw=True)
        except Exception as error:
            if status_of(error) == _MISSING:
                return None
            raise
        return read_answer(raw.response, dict[str, Any])

    def create_configuration(self, document: Mapping[str, Any]) -> bool:
        """Make a configuration; False where there is one of that name."""
        from azure.iot.hub.models import (  # noqa: PLC0415 - Azure's, late
            Configuration,
            ConfigurationContent,
            ConfigurationMetrics,
        )

        configuration = Configuration(
            id=document["id"],
            schema_version=document["schemaVersion"],
            labels=document["labels"],
            content=ConfigurationContent(modules_content=document["content"]["modulesContent"]),
            target_condition=document["targetCondition"],
            priority=document["priority"],
            metrics=ConfigurationMetrics(queries=document["metrics"]["queries"]),
        )
        create = self._protocol.configuration.create_or_update
        return self._create(create, document["id"], configuration)

    def delete_configuration(self, name: str) -> None:
        """Take a configuration away; no error where there is none."""
        try:
            self._protocol.configuration.delete(name, "*")
        except Exception as error:
            if status_of(error) != _MISSING:
                raise


class Hubs:
    """The hubs of a profile, in its order.

    Args:
        clients: to reach them with.
        hosts: their names.
    """

    def __init__(self, clients: Clients, hosts: tuple[str, ...]) -> None:
        self._hubs = {host: Hub(clients, host) for host in hosts}

    def __iter__(self) -> Iterator[Hub]:
        """In the profile's order."""
        return iter(self._hubs.values())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._hubs)

    def __getitem__(self, host: str) -> Hub:
        """A hub by its name."""
        return self._hubs[host]
