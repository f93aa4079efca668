"""What one runtime process is told: values only, checked before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.labels import check_reported
from edgefleet.protocol.names import check_name
from edgefleet.protocol.pointer import FleetId
from edgefleet.protocol.typed import convert
from edgefleet_runtime.engines.cache import MAX_BYTES
from edgefleet_runtime.serve.access import Access
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.queueing import BatchLimits
from edgefleet_runtime.watch.actions.settings import ActionSettings

STORE_MAX_BYTES = 8 << 30
SPOOL_MAX_BYTES = 512 << 20
MIN_SPOOL_BYTES = 1 << 20
ENGINES = "engines"  # folder below the root, with what was built from models
STOP_S = 8.0  # from the signal to the end; Kubernetes waits for 30 s, IoT Edge for 10 s

PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one runtime.

    Attributes:
        root: folder of its own on a persistent disk: store, spool and state.
        device: the device's name, as its fleet knows it.
        channel: name of the channel.
        channel_options: as the channel documents them.
        fleet: UUID given at enrolment; None to belong to the first pointer's fleet.
        host: address to serve on; None for none.
        port: 0 for one that is free.
        uds: path of a Unix socket to serve on as well.
        access: who may use those addresses.
        batching: how large batches may become.
        limits: what is accepted before requests are refused.
        grpc_host: address to serve gRPC on; None for none.
        grpc_port: 0 for one that is free.
        grpc_uds: path of a Unix socket to serve gRPC on as well.
        edge_manager_uds: path of a Unix socket for clients of Edge Manager's agent; None for none.
        otlp: address of a collector for metrics and traces; empty for the one that the environment
            names, None for none.
        labels: facts about the device, in place of those detected.
        metered: whether the link costs money by what goes over it: ``yes``, ``no``, or the path of
            a file that says so and may change.
        store_max_bytes: cap of models on the disk.
        spool_max_bytes: cap of unsent telemetry on the disk.
        memory_max_bytes: cap of what models take in memory, by estimate; None for none.
        fetch_max_bytes_per_s: bandwidth that fetching may take; None for all there is.
        healthy_after_s: seconds of serving until a release counts as good.
        exit_with_parent: stop when standard input ends.
        trial_bytes: the device's own cap of what trials of further variants may fetch, beside the
            release's, and what each trial may that an operator orders; None for none of its own, 0
            on a metered link.
        engine_cache_max_bytes: cap of the engines that are built from models and kept.
        external: address of an inference server that runs the models, in place of an engine here.
        external_repository: folder that this server loads models from.
        external_model: without such a folder, the model of this server that is used.
        actions: what alarms may do on this device.
    """

    root: Path
    device: str
    channel: str
    channel_options: dict[str, str] = {}
    fleet: FleetId | None = None
    host: str | None = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    uds: Path | None = None
    access: Access = Access()
    batching: BatchLimits = BatchLimits()
    limits: Limits = Limits()
    grpc_host: str | None = None
    grpc_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    grpc_uds: Path | None = None
    edge_manager_uds: Path | None = None
    otlp: str | None = None
    labels: dict[str, str] = {}
    metered: Annotated[str, msgspec.Meta(min_length=1)] = "no"
    store_max_bytes: PositiveInt = STORE_MAX_BYTES
    spool_max_bytes: Annotated[int, msgspec.Meta(ge=MIN_SPOOL_BYTES)] = SPOOL_MAX_BYTES
    memory_max_bytes: PositiveInt | None = None
    fetch_max_bytes_per_s: PositiveInt | None = None
    healthy_after_s: Annotated[float, msgspec.Meta(ge=0)] = 20.0
    exit_with_parent: bool = False
    trial_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    engine_cache_max_bytes: PositiveInt = MAX_BYTES
    external: str | None = None
    external_repository: Path | None = None
    external_model: str = ""
    actions: ActionSettings = ActionSettings()

    def __post_init__(self) -> None:
        """Refuse a name that no fleet can know, and labels that a report has no room for."""
        check_name("device", self.device)
        if self.external and not (self.external_repository or self.external_model):
            raise InvalidInputError(
                "an external server needs a repository to write to, or a model to use",
                cure="give --external-repository DIR, or --external-model NAME",
            )
        check_reported(self.labels)


def checked(settings: dict[str, object]) -> NodeConfig:
    """Settings from outside as a configuration.

    Raises:
        InvalidInputError: one is missing or wrong; the message names it.
    """
    try:
        return convert(settings, NodeConfig)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InvalidInputError):  # of a check of ours: it tells its cure
            raise error.__cause__ from None
        raise InvalidInputError(f"wrong settings: {error}", cure="see --help") from error
