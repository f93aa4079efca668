"""Edge Manager's agent API of a server without a fleet, as its options ask for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.edge_manager_options import CAPTURE_MAX_BYTES
from edgefleet_runtime.serve.edgemanager.extra import edge_manager_server_type

if TYPE_CHECKING:
    import argparse

    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.serve.edgemanager.models import AgentModels
    from edgefleet_runtime.serve.edgemanager.server import EdgeManagerServer
    from edgefleet_runtime.serve.table import ModelTable

_LOADING_IS_OFF = "ask the owner to serve with --edge-manager-models DIR"


class EdgeManagerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a server without a fleet offers to clients of Edge Manager's agent.

    Attributes:
        uds: path of its Unix socket.
        models: folder below which clients may load models; None to let them load none.
        captures: folder that captures are kept in; None to refuse them.
        capture_max_bytes: cap of that folder.
    """

    uds: Path
    models: Path | None = None
    captures: Path | None = None
    capture_max_bytes: int = CAPTURE_MAX_BYTES


def edge_manager_config(arguments: argparse.Namespace) -> EdgeManagerConfig | None:
    """What was given; None without a socket.

    Raises:
        InvalidInputError: a folder is given, and no socket that needs it.
    """
    if arguments.edge_manager_uds is None:
        if arguments.edge_manager_models or arguments.capture_dir:
            raise InvalidInputError(
                "--edge-manager-models and --capture-dir are for clients of Edge Manager's agent",
                cure="give them a socket: --edge-manager-uds PATH",
            )
        return None
    if arguments.capture_max_bytes <= 0:
        raise InvalidInputError("--capture-max-bytes takes a number above 0", cure="see --help")
    return EdgeManagerConfig(
        uds=arguments.edge_manager_uds.absolute(),
        models=arguments.edge_manager_models,
        captures=arguments.capture_dir,
        capture_max_bytes=arguments.capture_max_bytes,
    )


def edge_manager_server(
    config: EdgeManagerConfig, table: ModelTable, options: EngineOptions, work: Path
) -> EdgeManagerServer:
    """The server, not started.

    Args:
        config: what it offers.
        table: the models; clients may add some.
        options: how to open those.
        work: an existing folder for files of bundles, laid out while they serve.

    Raises:
        MissingExtraError: grpcio or protobuf is not installed.
        NotFoundError: the folder of models is missing.
    """
    server = edge_manager_server_type()
    from edgefleet_runtime.serve.edgemanager.captures import Captures  # noqa: PLC0415 - the extra
    from edgefleet_runtime.serve.edgemanager.models import FixedModels  # noqa: PLC0415
    from edgefleet_runtime.spool.recorders import FolderRecorder  # noqa: PLC0415
    from edgefleet_runtime.standalone.agent_models import FolderModels  # noqa: PLC0415

    models: AgentModels
    if config.models is None:
        models = FixedModels(table, _LOADING_IS_OFF)
    else:
        models = FolderModels(config.models, table, options, work)
    captures = None
    if config.captures is not None:
        captures = Captures(FolderRecorder(config.captures, config.capture_max_bytes))
    return server(table, config.uds, models=models, captures=captures)
