"""Pushing what a user has, a bundle or a bare model file, to a registry."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet.interfaces.progress import Bytes
from edgefleet.protocol.layout import INDEX_FILE, BundleLayout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.interfaces.registry import Registry
    from edgefleet.interfaces.values import ModelVersion


def push(
    registry: Registry,
    model: BundleLayout | Path | str,
    name: str,
    *,
    version: str | None,
    labels: Mapping[str, str] | None,
    progress: bool,
) -> ModelVersion:
    """A version of a model, made of a bundle, a bundle's folder or an ``.onnx`` file."""
    if isinstance(model, BundleLayout):
        total = sum(descriptor.size for descriptor in model.blobs())
        with Bytes(f"pushing {name}", total, enabled=progress) as advance:
            return registry.push(model, name, version=version, labels=labels, progress=advance)
    path = Path(model)
    if (path / INDEX_FILE).is_file():
        layout = BundleLayout(path)
        return push(registry, layout, name, version=version, labels=labels, progress=progress)
    if not path.is_file():
        msg = f"no model at {path}"
        raise InvalidInputError(msg, cure="give an .onnx file or a bundle's folder")
    from edgefleet.optimization.packaging import bundle_from_onnx  # noqa: PLC0415 - heavy

    with tempfile.TemporaryDirectory(prefix="edgefleet-push-") as folder:
        bundle = bundle_from_onnx(path, Path(folder) / "bundle", name=name)
        return push(registry, bundle, name, version=version, labels=labels, progress=progress)
