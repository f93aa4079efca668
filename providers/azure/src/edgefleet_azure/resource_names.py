"""Names of a fleet's resources in Azure, told from its settings alone.

Install finds again by name what it made, so every name follows from the profile: hosts tell the
names of the services behind them, and role assignments have ids made of what they assign.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError

if TYPE_CHECKING:
    from edgefleet_azure.settings import AzureSettings

TAG = "edgefleet"
"""Tag of the services that install made; its value is the fleet's prefix."""
KINDS = ("models", "state", "devices", "training")
"""What a fleet has a container for."""
_REGISTRY = re.compile(r"^([a-zA-Z0-9]{5,50})\.azurecr\.io/([a-z0-9._/-]+)")
_ACCOUNT = re.compile(r"^[a-z0-9]{3,24}$")


class ResourceNames:
    """The names of one fleet.

    Args:
        settings: of the fleet.
    """

    def __init__(self, settings: AzureSettings) -> None:
        self.prefix = settings.prefix
        self.group = settings.group_path
        self.tags = {TAG: settings.prefix}
        self.deployment = f"edgefleet-{settings.prefix}"
        """The deployment of the fleet's template."""
        self.route = f"edgefleet-{settings.prefix}"
        """The route, in each hub, of what the fleet's devices say."""
        self.enrollment_group = settings.prefix
        """The enrolment group of devices that register themselves."""
        self.storage = _account(settings.storage_url)
        self.containers = {kind: settings.container(kind) for kind in KINDS}
        self.hubs = {host: name_of_host(host) for host in settings.hubs}
        """Names of the hubs, by their hosts."""
        found = _REGISTRY.match(settings.runtime_image or "")
        self.registry = found[1] if found else None
        """The container registry that the runtime's image is in; None for one outside Azure."""
        self.repository = found[2] if found else None
        """Where the image is in that registry."""

    def of(self, type_: str, *names: str) -> str:
        """The resource id of a resource of the group.

        Args:
            type_: with its namespace.
            names: its name, behind those that it lies in.
        """
        namespace, *kinds = type_.split("/")
        path = "/".join(f"{kind}/{name}" for kind, name in zip(kinds, names, strict=True))
        return f"{self.group}/providers/{namespace}/{path}"

    def guid(self, *parts: str) -> str:
        """An id that the same parts always give, in this group and fleet."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join((self.group, self.prefix, *parts))))


def name_of_host(host: str) -> str:
    """The name of the service behind a host: its first label; a port belongs to the name."""
    first, _, rest = host.partition(".")
    if rest and not rest.partition(":")[0].replace(".", "").isdigit():
        return first
    return re.sub(r"[.:]", "-", host)


def _account(url: str) -> str:
    """The storage account behind a blob endpoint: its host's first label, or an emulator's path."""
    host, _, path = url.removeprefix("https://").partition("/")
    name = path or host.partition(".")[0]
    if not _ACCOUNT.fullmatch(name):
        raise ConfigurationError(
            f"`storage_url` {url} doesn't tell the storage account's name",
            cure="give the account's own blob endpoint: https://ACCOUNT.blob.core.windows.net",
        )
    return name
