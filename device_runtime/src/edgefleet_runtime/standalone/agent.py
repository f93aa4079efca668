"""Edge Manager's agent API of a server without a fleet, as its options ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_runtime.serve.edgemanager.extra import edge_manager_server_type

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_runtime.edge_manager_options import EdgeManagerConfig
    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.serve.edgemanager.models import AgentModels
    from edgefleet_runtime.serve.edgemanager.server import EdgeManagerServer
    from edgefleet_runtime.serve.table import ModelTable

_LOADING_IS_OFF = "ask the owner to serve with --edge-manager-models DIR"


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
