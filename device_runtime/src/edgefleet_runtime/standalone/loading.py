"""Model files and bundles as served models, without a store and without a fleet.

Both `edgefleet_runtime.inprocess` and the stand-alone server open them here. Rules kept:

- What can't be opened is an error that names the model.
- A bundle is verified and passes its self-test before it serves, as on a device of a fleet.
- A bare file needs nothing of what reads bundles.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edgefleet.errors import EdgeFleetError, InvalidInputError, InvalidModelError, NotFoundError
from edgefleet_runtime.engines.discovery import engine_for
from edgefleet_runtime.serve.table import ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_runtime.engines.base import Engine, EngineOptions

    EngineFor = Callable[[str], Engine]

FORMATS = {".onnx": "onnx", ".tflite": "tflite", ".xml": "openvino"}
"""Formats by the endings of model files."""


def format_of(path: Path) -> str:
    """The format of a model file, from its name.

    Raises:
        InvalidInputError: no engine is known for such names.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise InvalidInputError(
            f"{path} is no model file", cure=f"name one that ends in {' or '.join(FORMATS)}"
        ) from None


def load_file(
    name: str,
    path: Path,
    options: EngineOptions,
    *,
    version: str = "1",
    find_engine: EngineFor = engine_for,
) -> ServedModel:
    """A model file, opened.

    Raises:
        EdgeFleetError: as `Engine.load`; the message names the model.
    """
    if path.is_dir():
        raise InvalidInputError(
            f"model {name!r}: {path} is a folder",
            cure="a model is a file; a bundle's folder goes with --bundle, a repository's with "
            "--model-repository",
        )
    if not path.is_file():
        raise NotFoundError(
            f"model {name!r}: there is no file {path}",
            cure="give the path of a model file, seen from the folder that this was started in",
        )
    try:
        model = find_engine(format_of(path)).load(path, options)
    except EdgeFleetError as error:
        error.prefixed(f"model {name!r}")
        raise
    return ServedModel(model, name=name, version=version, bundle="", variant="")


def load_bundle(
    name: str,
    folder: Path,
    work: Path,
    options: EngineOptions,
    *,
    find_engine: EngineFor = engine_for,
) -> ServedModel:
    """The variant of a bundle that fits this machine, verified, opened and self-tested.

    Args:
        name: to serve it under.
        folder: holds the bundle.
        work: where the variant's files are laid out, on the same disk where possible; they must
            stay while the model serves.
        options: how to open it.
        find_engine: gives the engine for a format.

    Raises:
        IntegrityError: a file of the bundle is damaged.
        NotFoundError: the folder holds no bundle, or no variant fits this machine.
        InvalidModelError: the engine can't open it, or it fails its self-test.
    """
    from edgefleet.protocol.layout import BundleLayout  # noqa: PLC0415 - a bare file needs none
    from edgefleet.protocol.target import choose_variant, target_of  # noqa: PLC0415
    from edgefleet_runtime.engines.installed import installed_engines  # noqa: PLC0415
    from edgefleet_runtime.ensemble.stepped import with_steps  # noqa: PLC0415
    from edgefleet_runtime.reconciler.selftest import self_test, warm_up  # noqa: PLC0415
    from edgefleet_runtime.report import host  # noqa: PLC0415

    try:
        layout = BundleLayout(folder)
        engines = [engine for engine in installed_engines() if not engine.problem]
        labels = host.labels(providers={p for engine in engines for p in engine.providers})
        formats = {name for engine in engines for name in engine.formats}
        variant = choose_variant(layout.variants, target_of(labels), formats=formats).variant
        entry = layout.materialize(variant.name, work)
        details = layout.details(variant.name)
        model = find_engine(variant.format).load(entry, options)
        try:
            warm_up(model, details)
            _, wrong = self_test(model, details)
        except BaseException:
            model.close()
            raise
        if wrong is not None:
            model.close()
            _refuse(f"variant {variant.name}: {wrong}")
        whole = with_steps(model, details)
    except EdgeFleetError as error:
        error.prefixed(f"model {name!r}")
        raise
    return ServedModel(whole, name=name, version="1", bundle=layout.digest, variant=variant.name)


def _refuse(why: str) -> NoReturn:
    raise InvalidModelError(why)
