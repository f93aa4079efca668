"""Settings of the AWS provider. Imports no vendor SDK: naming a provider must cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from edgefleet.plugins.provider import RemoteSettings
from edgefleet.protocol.names import check_name

MIB = 1 << 20
# S3 user guide, "General purpose bucket naming rules"
_BUCKET = r"^[a-z0-9](?:[a-z0-9.-]{1,61}[a-z0-9])$"
_ROLE = r"^arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+$"  # SageMaker's RoleArn

_THING_GROUP = r"^[a-zA-Z0-9:_-]{1,128}$"  # AWS IoT's ThingGroupName


class AwsSettings(RemoteSettings):
    """What ``[profiles.<name>.aws]`` may hold. Credentials are boto3's affair, never a setting.

    Attributes:
        bucket: S3 bucket of the fleet; everything lies below ``prefix`` in it.
        region: of the bucket and of SageMaker; None for what boto3 finds in its own configuration.
        credentials_profile: profile of the AWS configuration files; None for boto3's own choice.
        endpoint_url: address of an S3-compatible store, such as MinIO in a plant; None for AWS.
        part_mib: size of the parts that large blobs are sent in, in MiB.
        training_role: ARN of the role that training jobs run under; needed for training only.
        pipeline_role: ARN of the role that pipelines and their registering step run under; needed
            for `Fleet.automate` only.
        training_image: address of the image that scripts run in; needed for training only. Any
            image with Python 3.9 or newer and pip, such as one of AWS's Deep Learning Containers.
        training_instance: machine type of runs that name none and ask for no GPU.
        training_volume_gib: disk of each training machine, in GiB.
        training_spot: use spare capacity: cheaper, and SageMaker may interrupt a run.
        max_machines: most machines that one run may ask for.
        max_runtime_s: runs that name no limit are ended after so many seconds.
        runtime_python: path of the Python on devices that has the runtime installed, such as
            ``/opt/edgefleet/bin/python``; for ``edgefleet install``, in place of
            ``runtime_wheels``.
        runtime_wheels: folder of wheels of the runtime and all that it needs, for every kind of
            device; relative to the profile file. Devices install them without an index.
        thing_groups: thing groups of your own that are groups of the fleet, by the group's name,
            such as ``{"line-3" = "PressShop"}``. Others are made, named ``PREFIX:GROUP``.
        device_roles: names of the roles that the token exchange of devices which are core devices
            already uses; ``edgefleet install`` gives them what the fleet's devices may do.
        provision_group: group that new devices come into which register themselves with a claim
            certificate; None for no such devices.
        provision_hook: ARN of a Lambda function that AWS IoT asks about each new device.
        fleet_indexing: have AWS IoT index the devices' reports, so that fleet queries find them.
            It is a setting of the whole account and costs by the device.
        cache: where outputs of runs are kept on this machine; relative to the profile file.
    """

    provider: ClassVar[str] = "aws"
    bucket: str = Field(pattern=_BUCKET)
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]{4,32}$")
    credentials_profile: str | None = None
    endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+(?:/.*)?$")
    part_mib: int = Field(default=8, ge=5, le=512)  # S3 takes no smaller part than 5 MiB
    training_role: str | None = Field(default=None, pattern=_ROLE)
    pipeline_role: str | None = Field(default=None, pattern=_ROLE)
    training_image: str | None = Field(default=None, min_length=1, max_length=255)
    training_instance: str = "ml.m5.xlarge"
    training_volume_gib: int = Field(default=30, ge=1, le=16_384)
    training_spot: bool = False
    max_machines: int = Field(default=8, ge=1)
    max_runtime_s: int = Field(default=86_400, ge=1, le=2_419_200)  # SageMaker's most is 28 days
    runtime_python: str | None = Field(default=None, pattern=r"^/[A-Za-z0-9_./-]+$")
    runtime_wheels: Path | None = None
    thing_groups: dict[str, Annotated[str, Field(pattern=_THING_GROUP)]] = Field(
        default_factory=dict
    )
    device_roles: tuple[Annotated[str, Field(pattern=r"^[\w+=,.@-]{1,64}$")], ...] = ()
    provision_group: str | None = None
    provision_hook: str | None = Field(default=None, pattern=r"^arn:aws[a-z-]*:lambda:\S+$")
    fleet_indexing: bool = False
    cache: Path = Path(".edgefleet/aws")

    @field_validator("provision_group")
    @classmethod
    def _is_a_group(cls, group: str | None) -> str | None:
        return None if group is None else check_name("group", group)

    @field_validator("thing_groups")
    @classmethod
    def _are_apart(cls, groups: dict[str, str]) -> dict[str, str]:
        for group in groups:
            check_name("group", group)
        if len(set(groups.values())) < len(groups):
            raise ValueError("one thing group for two groups")
        return groups

    @property
    def root(self) -> str:
        """Where everything of the fleet lies: ``s3://BUCKET/PREFIX``."""
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def part_bytes(self) -> int:
        """Size of the parts that large blobs are sent in, in bytes."""
        return self.part_mib * MIB
