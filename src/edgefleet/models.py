"""What a fleet does with models before a device is spoken of: train, automate, compile, push."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgefleet.capabilities import require
from edgefleet.errors import ConfigurationError, InvalidInputError
from edgefleet.interfaces.automation import Automation, CanAutomate
from edgefleet.interfaces.compilation import DEFAULT_RUNTIME_S, CanCompile, CompilationJob
from edgefleet.interfaces.progress import Bytes
from edgefleet.interfaces.training import Param, Resources, TrainingJob
from edgefleet.origins import dataset_in, remember_run, trained_by
from edgefleet.plugins import discovery
from edgefleet.profile import first_problem
from edgefleet.protocol.layout import INDEX_FILE, BundleLayout
from edgefleet.protocol.names import MAX_MODEL_CHARACTERS, check_name
from edgefleet.protocol.target_problems import check_variants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgefleet.interfaces.automation import AutomationRun, Gate
    from edgefleet.interfaces.compilation import CompilationRun
    from edgefleet.interfaces.registry import Registry
    from edgefleet.interfaces.trainer import Trainer
    from edgefleet.interfaces.training_run import TrainingRun
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.services import Services

_LOG = logging.getLogger(__name__)
_EXPORTED = (
    "give an .onnx file: edgefleet.convert writes one of an estimator, torch.onnx.export of a "
    "PyTorch module"
)
_LEVELS = {"warn": logging.WARNING, "note": logging.INFO}


class Models:
    """The part of a fleet that trains models and keeps them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def registry(self) -> Registry:
        """The profile's registry."""
        return self._services.registry

    @property
    def trainer(self) -> Trainer:
        """The profile's trainer."""
        return self._services.trainer

    def train(
        self,
        script: Path | str,
        *,
        data: os.PathLike[str] | str | None = None,
        params: Mapping[str, Any] | None = None,
        name: str | None = None,
        requirements: tuple[str, ...] = (),
        resources: Resources | None = None,
    ) -> TrainingRun:
        """Run a training script with the profile's trainer and return at once; see `TrainingJob`.

        Args:
            script: a Python file.
            data: a file or folder here, or an address that the trainer understands. Of a dataset,
                which version went in is remembered in the state store.
            params: JSON scalars by name.
            name: prefix of the run's id; None for the script's.
            requirements: pip requirements of the script.
            resources: what the run needs.
        """
        job = _job(
            script,
            data=data,
            params=params,
            name=name,
            requirements=requirements,
            resources=resources,
        )
        folder = job.data if isinstance(job.data, Path) else None
        version = None if folder is None else dataset_in(self._services, folder)
        run = self.trainer.submit(job)
        if version is not None:
            remember_run(self._services, run.id, job, version)
        return run

    def automate(
        self,
        script: Path | str,
        *,
        evaluate: Path | str,
        gate: Gate,
        model: str,
        data: os.PathLike[str] | str | None = None,
        params: Mapping[str, Any] | None = None,
        name: str | None = None,
        requirements: tuple[str, ...] = (),
        resources: Resources | None = None,
    ) -> AutomationRun:
        """Have the trainer train, evaluate and, past the gate, register; return at once.

        The trainer goes on when this machine is off. The version is registered with its approval
        pending.

        Args:
            script: the training script.
            evaluate: the evaluating script: the same contract, and EDGEFLEET_MODEL_DIR is the
                folder of what the training script left. It logs the gate's metric.
            gate: what the model must reach to be registered.
            model: the name to register it under.
            data: a file or folder here, or an address that the trainer understands; both scripts
                get it.
            params: JSON scalars by name; both scripts get them.
            name: the automation's own; None for the model's. The same again is a new execution.
            requirements: pip requirements of both scripts.
            resources: what each of the two runs needs.

        Raises:
            UnsupportedError: the profile's trainer can't; or it can't give the resources.
            ConfigurationError: the profile's registry isn't the trainer's own, where it registers.
        """
        trainer = require(self.trainer, CanAutomate)
        if self.registry.provider != trainer.provider:
            raise ConfigurationError(
                f"the trainer of {trainer.provider!r} registers in its own registry, and the "
                f"profile's is of {self.registry.provider!r}",
                cure="train with fleet.train and push what comes of it with fleet.push",
            )
        train = _job(
            script, data=data, params=params, requirements=requirements, resources=resources
        )
        with _checked("automation"):
            automation = Automation(
                train=train,
                evaluate=Path(evaluate),
                gate=gate,
                model=model,
                name=name or model,
            )
        return trainer.automate(automation)

    def compile(
        self,
        model: Path | str,
        *,
        device: str,
        shapes: Mapping[str, Sequence[int]] | None = None,
        options: Mapping[str, Any] | None = None,
        max_runtime_s: float = DEFAULT_RUNTIME_S,
    ) -> CompilationRun:
        """Have the trainer's vendor compile an ONNX file for a kind of device; return at once.

        `CompilationRun.file` is what it made: one more variant, by `Bundle.add_variant`.

        Args:
            model: an ONNX file without external data files.
            device: the vendor's own name of a kind of device.
            shapes: shape of each input; those that the file leaves open are needed.
            options: options of the compiler, by the vendor's own names.
            max_runtime_s: the compilation is ended after so many seconds.

        Raises:
            UnsupportedError: the profile's trainer can't, or its service takes no such device or
                model.
            InvalidInputError: a shape is missing, or there are external data files.
        """
        from edgefleet.optimization.onnx_file import inspect  # noqa: PLC0415 - heavy

        trainer = require(self.trainer, CanCompile)
        file = inspect(Path(model))
        if file.external:
            msg = f"{model} has external data files, which no compiling service takes"
            raise InvalidInputError(msg, cure="save it as one file, or ship it as it is")
        given = {name: tuple(shape) for name, shape in (shapes or {}).items()}
        known = {one.name: one.shape for one in file.interface.inputs}
        if unknown := ", ".join(sorted(set(given) - set(known))):
            msg = f"{model} has no input {unknown}"
            raise InvalidInputError(msg, cure=f"its inputs: {', '.join(known)}")
        with _checked("compilation"):
            job = CompilationJob(
                model=file.path.absolute(),
                opset=file.opset,
                shapes=known | given,
                device=device,
                options=dict(options or {}),
                max_runtime_s=max_runtime_s,
            )
        return trainer.compile(job)

    def push(
        self,
        model: BundleLayout | Path | str,
        name: str,
        *,
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
        run: TrainingRun | str | None = None,
        progress: bool = True,
    ) -> ModelVersion:
        """Store a bundle, a bundle's folder, or a bare ``.onnx`` file as a version of a model.

        A file becomes a bundle of one variant. See `Registry.push` for what is idempotent. What may
        fail on the targets that the variants were made for is logged.

        Args:
            model: what to store.
            name: of the model.
            version: None for the next whole number.
            labels: free text by key.
            run: that trained it; it and its dataset become part of the version's lineage.
            progress: show it where a person looks.

        Raises:
            InvalidInputError: there is no such model, or a target that a variant was made for can
                never run it.
        """
        pushed = self._push(model, name, version=version, labels=labels, progress=progress)
        return pushed if run is None else trained_by(self._services, pushed, run)

    def _push(
        self,
        model: BundleLayout | Path | str,
        name: str,
        *,
        version: str | None,
        labels: Mapping[str, str] | None,
        progress: bool,
    ) -> ModelVersion:
        if isinstance(model, BundleLayout):
            self._check_targets(model)
            total = sum(descriptor.size for descriptor in model.blobs())
            with Bytes(f"pushing {name}", total, enabled=progress) as advance:
                return self.registry.push(
                    model, name, version=version, labels=labels, progress=advance
                )
        path = _path_of(model)
        if (path / INDEX_FILE).is_file():
            layout = BundleLayout(path)
            return self._push(layout, name, version=version, labels=labels, progress=progress)
        if not path.is_file():
            msg = f"no model at {path}"
            raise InvalidInputError(msg, cure="give an .onnx file or a bundle's folder")
        from edgefleet.optimization.packaging import bundle_from_onnx  # noqa: PLC0415 - heavy

        with tempfile.TemporaryDirectory(prefix="edgefleet-push-") as folder:
            bundle = bundle_from_onnx(path, Path(folder) / "bundle", name=name)
            return self._push(bundle, name, version=version, labels=labels, progress=progress)

    def _check_targets(self, bundle: BundleLayout) -> None:
        targets = discovery.usable_targets(self._services.profile.listeners())
        for problem in check_variants(bundle.variants, targets):
            cure = f"; {problem.cure}" if problem.cure else ""
            _LOG.log(_LEVELS[problem.level], "%s%s", problem, cure)


def _job(
    script: Path | str,
    *,
    data: os.PathLike[str] | str | None,
    params: Mapping[str, Any] | None,
    requirements: tuple[str, ...],
    resources: Resources | None,
    name: str | None = None,
) -> TrainingJob:
    address = data if isinstance(data, str) and "://" in data else None
    folder = None if data is None or address is not None else Path(data).absolute()
    if not Path(script).is_file():
        msg = f"no training script at {script}"
        raise InvalidInputError(msg, cure="give the path of a Python file")
    with _checked("training job"):
        return TrainingJob(
            script=Path(script),
            data=address or folder,
            params={key: _scalar(key, value) for key, value in (params or {}).items()},
            name=check_name("run", name) if name else _named_after(Path(script)),
            requirements=requirements,
            resources=resources or Resources(),
        )


def _path_of(model: object) -> Path:
    if not isinstance(model, str | os.PathLike):
        msg = f"{type(model).__name__} is neither a bundle nor a path"
        raise InvalidInputError(msg, cure=_EXPORTED)
    return Path(model)


def _scalar(key: str, value: Any) -> Param:  # noqa: ANN401 - whatever a notebook has at hand
    """A parameter as JSON has it: NumPy's ``int64`` is an int, not a float."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, Param):
        msg = f"parameter {key!r} is a {type(value).__name__}"
        raise InvalidInputError(msg, cure="give a text, number, bool or None; json.dumps the rest")
    return value


def _named_after(script: Path) -> str:
    """What a run is called that has no name: ``train-2`` of ``Train (2).py``."""
    name = re.sub(r"[^a-z0-9]+", "-", script.stem.lower())[:MAX_MODEL_CHARACTERS]
    return name.strip("-") or "train"


@contextmanager
def _checked(what: str) -> Iterator[None]:
    """Name the first thing that is wrong with a value, as one of our errors."""
    try:
        yield
    except ValidationError as error:
        raise InvalidInputError(f"{what}: {first_problem(error)}") from error
