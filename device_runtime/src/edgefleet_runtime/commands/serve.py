"""``serve``: model files, bundles or a Triton model repository, without a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.access_options import access_settings, add_access
from edgefleet_runtime.commands.common import add_device, address, pairs
from edgefleet_runtime.edge_manager_options import add_edge_manager_folders
from edgefleet_runtime.otlp.extra import add_otlp

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="serve a model file under a name; may be given several times",
    )
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="serve the variant of a bundle that fits this machine, verified and self-tested; "
        "under the folder's name unless told otherwise",
    )
    parser.add_argument(
        "--model-repository",
        type=Path,
        metavar="DIR",
        help="serve every model of a Triton model repository: NAME/VERSION/model.onnx with an "
        "optional NAME/config.pbtxt, the latest version of each",
    )
    parser.add_argument(
        "--http",
        default="127.0.0.1:8000",
        metavar="HOST:PORT",
        help="where to serve; port 0 takes a free one; 'none' for nowhere (default: %(default)s)",
    )
    parser.add_argument("--uds", type=Path, metavar="PATH", help="serve on a Unix socket as well")
    add_access(parser)
    add_edge_manager_folders(parser)
    add_otlp(parser)
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="stop when standard input ends, so that no server outlives what started it",
    )
    add_device(parser)
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    from msgspec import convert

    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.engines.devices import providers_of
    from edgefleet_runtime.serve.access import Access
    from edgefleet_runtime.serve.loop import run
    from edgefleet_runtime.standalone.agent import edge_manager_config
    from edgefleet_runtime.standalone.serving import StandaloneConfig, serve

    host, port = address(arguments.http)
    models = {name: Path(path) for name, path in _distinct(arguments.model, "--model").items()}
    bundles = [text if "=" in text else f"{Path(text).name}={text}" for text in arguments.bundle]
    config = StandaloneConfig(
        models=models,
        bundles={name: Path(path) for name, path in _distinct(bundles, "--bundle").items()},
        repository=arguments.model_repository,
        options=EngineOptions(
            providers=providers_of(arguments.device),
            strict=arguments.strict,
            threads=arguments.threads,
            engine_cache=arguments.engine_cache,
        ),
        host=host,
        port=port,
        uds=arguments.uds,
        access=convert(access_settings(arguments), Access),
        edge_manager=edge_manager_config(arguments),
        otlp=arguments.otlp,
        exit_with_parent=arguments.exit_with_parent,
    )
    asked = config.edge_manager is not None and config.edge_manager.models
    if not (config.models or config.bundles or config.repository or asked):
        raise InvalidInputError(
            "there is nothing to serve",
            cure="name a model: --model NAME=FILE.onnx, --bundle DIR or --model-repository DIR",
        )
    run(serve(config, announce=lambda endpoint: print(f"serving on {endpoint}", flush=True)))
    return 0


def _distinct(items: list[str], option: str) -> dict[str, str]:
    found = pairs(items, option)
    if len(found) != len(items):
        raise InvalidInputError(
            f"{option} gives one name to several models", cure="give each its own name"
        )
    return found
