"""Serve model files, bundles or a Triton model repository, without a fleet.

Listens on this machine alone unless told otherwise. Starts with every model that was asked for, or
not at all, and tells where it serves. Ends at SIGTERM, once what has begun is answered.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.access_options import access_settings, add_access
from edgefleet_runtime.batching_options import add_batching, batching_settings, limit_settings
from edgefleet_runtime.collector import starting
from edgefleet_runtime.commands.common import add_device, engine_options, pairs, told
from edgefleet_runtime.commands.listening import add_listening, listening
from edgefleet_runtime.edge_manager_options import add_edge_manager_folders
from edgefleet_runtime.otlp.extra import add_otlp

if TYPE_CHECKING:
    import argparse

_JOIN_S = 1.0


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
    add_repository(parser)
    add_listening(parser, http="127.0.0.1:8000")
    add_access(parser)
    add_batching(parser)
    add_edge_manager_folders(parser)
    add_otlp(parser)
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="stop when standard input ends, so that no server outlives what started it",
    )
    add_device(parser)
    parser.set_defaults(command=_run)


def add_repository(parser: argparse.ArgumentParser) -> None:
    """Declare the options about a model repository."""
    options = parser.add_argument_group(
        "a Triton model repository",
        "Clients on this machine, over loopback or a Unix socket, list, load and unload its models "
        "while the others serve. A load that fails leaves what served before.",
    )
    options.add_argument(
        "--model-repository",
        type=Path,
        metavar="DIR",
        help="serve its models: NAME/VERSION/model.onnx with an optional NAME/config.pbtxt, the "
        "latest version of each; one that can't be loaded stops the start",
    )
    options.add_argument(
        "--load-model",
        action="append",
        metavar="NAME",
        help="begin with this model alone, and leave the others for clients to load; may be given "
        "several times; 'none' to begin with no model (default: all of them)",
    )
    options.add_argument(
        "--model-control",
        action="store_true",
        help="let callers on other machines load and unload models too",
    )
    options.add_argument(
        "--allow-overrides",
        action="store_true",
        help="let whoever may load a model bring its config and its files; never on without this, "
        "for they are a model that nobody but the caller has seen",
    )


def _run(arguments: argparse.Namespace) -> int:
    with starting():
        return _serve(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    from edgefleet.protocol.typed import convert
    from edgefleet_runtime.serve.access import Access
    from edgefleet_runtime.serve.descriptors import allow_files
    from edgefleet_runtime.serve.loop import run
    from edgefleet_runtime.serve.messages import Limits
    from edgefleet_runtime.serve.queueing import BatchLimits
    from edgefleet_runtime.standalone.agent import edge_manager_config
    from edgefleet_runtime.standalone.serving import StandaloneConfig, serve

    allow_files()
    models = {name: Path(path) for name, path in _distinct(arguments.model, "--model").items()}
    bundles = [text if "=" in text else f"{Path(text).name}={text}" for text in arguments.bundle]
    where = listening(arguments)
    config = StandaloneConfig(
        models=models,
        bundles={name: Path(path) for name, path in _distinct(bundles, "--bundle").items()},
        repository=arguments.model_repository,
        load=_load(arguments.load_model),
        model_control=arguments.model_control,
        allow_overrides=arguments.allow_overrides,
        options=engine_options(arguments),
        host=where.host,
        port=where.port,
        uds=where.uds,
        grpc_host=where.grpc_host,
        grpc_port=where.grpc_port,
        grpc_uds=where.grpc_uds,
        access=convert(access_settings(arguments), Access),
        batching=told(batching_settings(arguments), BatchLimits),
        limits=told(limit_settings(arguments), Limits),
        edge_manager=edge_manager_config(arguments),
        otlp=arguments.otlp,
        exit_with_parent=arguments.exit_with_parent,
    )
    run(serve(config, announce=lambda line: print(line, flush=True)))
    if _busy():
        # A thread sits in a call that doesn't end, such as a model's load: leave now.
        logging.shutdown()
        os._exit(0)
    return 0


def _busy() -> bool:
    """Whether a thread that the interpreter would wait for at its end goes on and on."""
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(_JOIN_S / len(others))
    return any(thread.is_alive() for thread in others)


def _load(names: list[str] | None) -> tuple[str, ...] | None:
    """The models to begin with; None for all."""
    if names == ["none"]:
        return ()
    if names is not None and "none" in names:
        raise InvalidInputError(
            "--load-model none stands beside other models", cure="give none alone, or leave it out"
        )
    return None if names is None else tuple(names)


def _distinct(items: list[str], option: str) -> dict[str, str]:
    found = pairs(items, option)
    if len(found) != len(items):
        raise InvalidInputError(
            f"{option} gives one name to several models", cure="give each its own name"
        )
    for name in found:
        if "/" in name:
            raise InvalidInputError(
                f"no client could ask for a model named {name!r} over REST",
                cure=f"write {option} NAME=PATH, with a name that has no '/'",
            )
    return found
