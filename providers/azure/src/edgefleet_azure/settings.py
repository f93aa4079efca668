"""Settings of the Azure provider. Imports no vendor SDK: naming a provider must cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from edgefleet.plugins.provider import RemoteSettings
from edgefleet.protocol.names import check_name

MIB = 1 << 20
ARM = "https://management.azure.com"
# A blob endpoint: an account's own host, or an emulator's with the account as path.
_STORAGE = r"^https://[^\s/?#@]+(?:/[a-z0-9]{3,24})?$"
_SUBSCRIPTION = r"^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
# Azure's resource naming rules: resource groups, and workspaces and registries of Azure ML
_RESOURCE_GROUP = r"^[\w.()-]{0,89}[\w()-]$"
_WORKSPACE = r"^[A-Za-z0-9][A-Za-z0-9_-]{2,32}$"
_HOST = r"^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::\d{1,5})?$"


class AzureSettings(RemoteSettings):
    """What ``[profiles.<name>.azure]`` may hold. Credentials are azure-identity's affair.

    Attributes:
        storage_url: blob endpoint of the fleet's storage account, such as
            ``https://ACCOUNT.blob.core.windows.net``; the fleet's containers there are named
            ``PREFIX-models``, ``PREFIX-state`` and ``PREFIX-devices``.
        subscription: id of the subscription that all but `ml_registry` lies in.
        resource_group: name of the resource group that all but `ml_registry` lies in.
        workspace: name of the Azure ML workspace, for training, and for model versions where no
            `ml_registry` is named.
        ml_registry: name of a shared Azure ML registry of the tenant, in whatever subscription and
            group it lies: versions are shown there, for several workspaces, and not in `workspace`.
            It must be there; nothing here makes one.
        environment: Azure ML environment that scripts run in, such as
            ``azureml:AzureML-sklearn-1.5@latest``, or an image's address; needed for training only.
        compute: name of the compute that runs use which name none; None for serverless compute.
        training_spot: ask for spare capacity, whose runs may be interrupted and start anew; say so,
            too, where `compute` is of low priority.
        pipeline_identity: client id of the managed identity that the last step of `fleet.automate`
            runs under, which registers; None for the compute's own.
        hubs: host names of the IoT Hubs that devices belong to, the default first, such as
            ``HUB.azure-devices.net``; several for more groups than one hub takes.
        events_endpoint: of each hub, the Event Hubs-compatible endpoint that hot events are read
            from, as ``NAMESPACE-HOST/EVENT-HUB``; where it is not given, it is asked of the hub.
        block_mib: size of the blocks that large blobs are sent in, in MiB.
        max_machines: most machines that one run may ask for.
        max_runtime_s: runs that name no limit are ended after so many seconds.
        access_days: how long what a group's devices read blobs with lasts, in days. Whoever copies
            it can read as long; devices go without ``edgefleet access renew`` no longer.
        runtime_image: address of the container image of the device runtime, for
            ``edgefleet install``.
        operators: object ids of the users, groups and service principals to whom
            ``edgefleet install`` gives the roles that operators need.
        dps: host name of the Device Provisioning Service that new devices register with, such as
            ``DPS.azure-devices-provisioning.net``; None for devices that are enrolled by hand.
        provision_group: group that devices come into which register themselves; needs ``dps``.
        provision_ca: file of the certificate, in PEM, that signs the certificates of devices which
            register themselves; relative to the profile file. None for symmetric keys.
        arm_url: address of Azure Resource Manager, for clouds other than the public one.
        cache: where outputs of runs are kept on this machine; relative to the profile file.
    """

    provider: ClassVar[str] = "azure"
    storage_url: str = Field(pattern=_STORAGE)
    subscription: str = Field(pattern=_SUBSCRIPTION)
    resource_group: str = Field(pattern=_RESOURCE_GROUP)
    workspace: str | None = Field(default=None, pattern=_WORKSPACE)
    ml_registry: str | None = Field(default=None, pattern=_WORKSPACE)
    environment: str | None = Field(default=None, min_length=1, max_length=255)
    compute: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9-]{1,31}$")
    training_spot: bool = False
    pipeline_identity: str | None = Field(default=None, pattern=_SUBSCRIPTION)
    hubs: tuple[Annotated[str, Field(pattern=_HOST)], ...] = ()
    events_endpoint: dict[str, Annotated[str, Field(pattern=r"^[^\s/]+/[A-Za-z0-9._-]+$")]] = Field(
        default_factory=dict
    )
    block_mib: int = Field(default=8, ge=1, le=512)
    max_machines: int = Field(default=8, ge=1)
    max_runtime_s: int = Field(default=86_400, ge=1, le=2_592_000)
    access_days: int = Field(default=30, ge=2, le=3650)
    runtime_image: str | None = Field(default=None, min_length=1, max_length=255)
    operators: tuple[Annotated[str, Field(pattern=_SUBSCRIPTION)], ...] = ()
    dps: str | None = Field(default=None, pattern=_HOST)
    provision_group: str | None = None
    provision_ca: Path | None = None
    arm_url: str = Field(default=ARM, pattern=r"^https://[^\s/?#@]+$")
    cache: Path = Path(".edgefleet/azure")

    @field_validator("prefix")
    @classmethod
    def _names_containers(cls, prefix: str) -> str:
        if "--" in prefix:
            raise ValueError("names of containers have no two hyphens in a row")
        return prefix

    @field_validator("storage_url", "arm_url", mode="before")
    @classmethod
    def _ends_without_slash(cls, url: object) -> object:
        return url.removesuffix("/") if isinstance(url, str) else url

    @field_validator("provision_group")
    @classmethod
    def _is_a_group(cls, group: str | None) -> str | None:
        return None if group is None else check_name("group", group)

    @field_validator("hubs")
    @classmethod
    def _are_apart(cls, hubs: tuple[str, ...]) -> tuple[str, ...]:
        if len({hub.lower() for hub in hubs}) < len(hubs):
            raise ValueError("a hub is named twice")
        return hubs

    def container(self, kind: str) -> str:
        """Name of a container of the fleet.

        Args:
            kind: ``models``, ``state`` or ``devices``.
        """
        return f"{self.prefix}-{kind}"

    @property
    def models_url(self) -> str:
        """Below it lie blobs, at ``blobs/sha256/<hex>``: what pointers name as their source."""
        return f"{self.storage_url}/{self.container('models')}"

    @property
    def group_path(self) -> str:
        """Resource id of the resource group."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"

    @property
    def block_bytes(self) -> int:
        """Size of the blocks that large blobs are sent in, in bytes."""
        return self.block_mib * MIB
