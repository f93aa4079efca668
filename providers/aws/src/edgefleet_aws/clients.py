"""The one place that makes boto3 clients: region, retries, timeouts, who we say we are.

Rules kept here:

- Retries wait longer each time, with jitter, and slow down where AWS throttles (botocore's
  ``adaptive`` mode); a call that is throttled to the end is a `ThrottledError`.
- ``endpoint_url`` is for S3 alone. The variables that AWS's own tools read, such as
  ``AWS_ENDPOINT_URL``, work for every service.
- boto3's types are unknown to mypy: the protocols below are the slices of its clients that we use.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Protocol, cast

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import create_loader

from edgefleet_aws.repeats import note_tries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_aws.settings import AwsSettings

Reply = dict[str, Any]

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
CONNECTIONS = 16  # held open to a service at most


class Paginator(Protocol):
    """Pages of a listing."""

    def paginate(self, **request: object) -> Iterator[Reply]: ...


class _Client(Protocol):
    """What every client has."""

    meta: Any

    def close(self) -> None: ...
    def get_paginator(self, operation: str) -> Paginator: ...


class S3(_Client, Protocol):
    """The slice of the S3 client that we use."""

    def abort_multipart_upload(self, **request: object) -> Reply: ...
    def complete_multipart_upload(self, **request: object) -> Reply: ...
    def create_multipart_upload(self, **request: object) -> Reply: ...
    def delete_bucket(self, **request: object) -> Reply: ...
    def delete_objects(self, **request: object) -> Reply: ...
    def delete_object(self, **request: object) -> Reply: ...
    def get_object(self, **request: object) -> Reply: ...
    def head_bucket(self, **request: object) -> Reply: ...
    def head_object(self, **request: object) -> Reply: ...
    def put_object(self, **request: object) -> Reply: ...
    def upload_file(self, filename: str, bucket: str, key: str, **options: object) -> None: ...
    def upload_part(self, **request: object) -> Reply: ...


class SageMaker(_Client, Protocol):
    """The slice of the SageMaker client that we use."""

    def create_compilation_job(self, **request: object) -> Reply: ...
    def create_model_package(self, **request: object) -> Reply: ...
    def create_model_package_group(self, **request: object) -> Reply: ...
    def create_pipeline(self, **request: object) -> Reply: ...
    def create_training_job(self, **request: object) -> Reply: ...
    def delete_model_package(self, **request: object) -> Reply: ...
    def describe_compilation_job(self, **request: object) -> Reply: ...
    def describe_model_package(self, **request: object) -> Reply: ...
    def describe_pipeline(self, **request: object) -> Reply: ...
    def describe_pipeline_execution(self, **request: object) -> Reply: ...
    def describe_training_job(self, **request: object) -> Reply: ...
    def start_pipeline_execution(self, **request: object) -> Reply: ...
    def stop_compilation_job(self, **request: object) -> Reply: ...
    def stop_pipeline_execution(self, **request: object) -> Reply: ...
    def stop_training_job(self, **request: object) -> Reply: ...
    def update_model_package(self, **request: object) -> Reply: ...
    def update_pipeline(self, **request: object) -> Reply: ...


class Logs(_Client, Protocol):
    """The slice of the CloudWatch Logs client that we use."""

    def describe_log_streams(self, **request: object) -> Reply: ...
    def get_log_events(self, **request: object) -> Reply: ...


class Iot(_Client, Protocol):
    """The slice of the AWS IoT client that we use."""

    def add_thing_to_thing_group(self, **request: object) -> Reply: ...
    def attach_policy(self, **request: object) -> Reply: ...
    def create_thing(self, **request: object) -> Reply: ...
    def create_thing_group(self, **request: object) -> Reply: ...
    def detach_policy(self, **request: object) -> Reply: ...
    def describe_endpoint(self, **request: object) -> Reply: ...
    def describe_job(self, **request: object) -> Reply: ...
    def describe_thing(self, **request: object) -> Reply: ...
    def describe_thing_group(self, **request: object) -> Reply: ...
    def get_indexing_configuration(self, **request: object) -> Reply: ...
    def remove_thing_from_thing_group(self, **request: object) -> Reply: ...
    def update_indexing_configuration(self, **request: object) -> Reply: ...


class IotData(_Client, Protocol):
    """The slice of the AWS IoT data client that we use."""

    def delete_thing_shadow(self, **request: object) -> Reply: ...
    def get_thing_shadow(self, **request: object) -> Reply: ...
    def publish(self, **request: object) -> Reply: ...
    def update_thing_shadow(self, **request: object) -> Reply: ...


class Greengrass(_Client, Protocol):
    """The slice of the Greengrass V2 client that we use."""

    def create_component_version(self, **request: object) -> Reply: ...
    def create_deployment(self, **request: object) -> Reply: ...
    def describe_component(self, **request: object) -> Reply: ...
    def get_component(self, **request: object) -> Reply: ...
    def get_core_device(self, **request: object) -> Reply: ...
    def get_deployment(self, **request: object) -> Reply: ...
    def list_deployments(self, **request: object) -> Reply: ...
    def list_effective_deployments(self, **request: object) -> Reply: ...


class Sts(_Client, Protocol):
    """The slice of the STS client that we use."""

    def get_caller_identity(self, **request: object) -> Reply: ...


class CloudFormation(_Client, Protocol):
    """The slice of the CloudFormation client that we use."""

    def create_stack(self, **request: object) -> Reply: ...
    def delete_stack(self, **request: object) -> Reply: ...
    def describe_stacks(self, **request: object) -> Reply: ...
    def get_template(self, **request: object) -> Reply: ...
    def update_stack(self, **request: object) -> Reply: ...


class Clients:
    """boto3 clients, made when they are first asked for. Safe to share between threads.

    Args:
        settings: region, retries, S3's endpoint.
        prepare: called with each new client; tests hang their checks on it.
    """

    def __init__(
        self, settings: AwsSettings, *, prepare: Callable[[_Client], object] | None = None
    ) -> None:
        self._settings = settings
        self._prepare = prepare
        self._lock = threading.Lock()
        self._made: dict[str, _Client] = {}
        self._session: Any = None

    @property
    def s3(self) -> S3:
        """S3, or the store that ``endpoint_url`` names."""
        return cast("S3", self.get("s3"))

    @property
    def sagemaker(self) -> SageMaker:
        """SageMaker."""
        return cast("SageMaker", self.get("sagemaker"))

    @property
    def logs(self) -> Logs:
        """CloudWatch Logs."""
        return cast("Logs", self.get("logs"))

    @property
    def iot(self) -> Iot:
        """AWS IoT's things and groups."""
        return cast("Iot", self.get("iot"))

    @property
    def iot_data(self) -> IotData:
        """AWS IoT's shadows and messages."""
        return cast("IotData", self.get("iot-data"))

    @property
    def greengrass(self) -> Greengrass:
        """Greengrass V2."""
        return cast("Greengrass", self.get("greengrassv2"))

    @property
    def sts(self) -> Sts:
        """Who we are."""
        return cast("Sts", self.get("sts"))

    @property
    def cloudformation(self) -> CloudFormation:
        """CloudFormation."""
        return cast("CloudFormation", self.get("cloudformation"))

    def get(self, service: str) -> _Client:
        """The client of a service by boto3's name for it."""
        with self._lock:
            made = self._made.get(service)
            if made is None:
                made = self._made[service] = self._make(service)
        return made

    def _make(self, service: str) -> _Client:
        if self._session is None:
            core = botocore.session.get_session()
            core.register_component("data_loader", _loader())
            self._session = boto3.session.Session(
                botocore_session=core, profile_name=self._settings.credentials_profile
            )
        client: _Client = self._session.client(
            service,
            region_name=self._settings.region,
            endpoint_url=self._settings.endpoint_url if service == "s3" else None,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=CONNECTIONS,
                retries={"mode": "adaptive", "total_max_attempts": self._settings.max_attempts},
                user_agent_extra="edgefleet",
            ),
        )
        if service == "s3":
            note_tries(client, "DeleteObject")
            note_tries(client, "PutObject")
        if self._prepare is not None:
            self._prepare(client)
        return client

    def close(self) -> None:
        """Close every connection; a client asked for afterwards is a new one."""
        with self._lock:
            for client in self._made.values():
                client.close()
            self._made.clear()


@functools.cache
def _loader() -> Any:  # noqa: ANN401 - botocore has no types
    """What reads service models: one for all, because reading S3's takes a tenth of a second."""
    return create_loader()
