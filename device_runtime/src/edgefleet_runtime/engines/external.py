"""An inference server that already runs, as an engine: Triton, or any Open Inference Protocol v2.

With a *repository*, a folder that the server reads, loading a model writes an entry there, asks the
server to load it and waits for its word: Triton with ``--model-control-mode=explicit``. Without
one, the server serves a model of its own, and loading only looks at it: the release's self-test
tells whether it is the one wanted.

Rules kept here:

- Entries are named by content, so that an old and a new release are loaded side by side, and a
  restart finds its own. An entry appears whole.
- Requests come through this process, and so are counted, recorded and swapped like any other's.
- Where it runs is the server's word. One that doesn't tell fails ``strict``.
- The server belongs to somebody else: nothing of it is touched but entries that we made.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from edgefleet.errors import EdgeFleetError, InferenceError, InvalidModelError, UnsupportedError
from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet.protocol.files import translate_full
from edgefleet.protocol.inference import encode_request
from edgefleet.protocol.typed import convert
from edgefleet_runtime.engines.base import Engine, EngineOptions, LoadedModel
from edgefleet_runtime.engines.feed import FeedCheck
from edgefleet_runtime.engines.oip_client import OipClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.oip_client import ModelInfo, ServerInfo

_log = logging.getLogger(__name__)

LOAD_S = 600.0  # TensorRT builds engines while a model loads
UNTOLD = "ExternalServer"
"""The provider of a server that doesn't tell on what it runs."""
_PREFIX = "edgefleet-"
_BINARY = "binary_tensor_data"


class ExternalEngine(Engine):
    """Lets another server run ONNX files.

    Args:
        url: of the server, ``http://HOST:PORT``.
        repository: folder that the server loads models from; None where it has models of its own.
        model: the model to use, without a repository.

    Raises:
        ConfigurationError: the address is none.
    """

    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})

    def __init__(self, url: str, *, repository: Path | None = None, model: str = "") -> None:
        OipClient(url).close()  # refuses what is no address
        self._url = url
        self._repository = repository
        self._model = model
        self._lock = threading.Lock()
        self._users: Counter[str] = Counter()  # models open under each of our names

    @classmethod
    def available(cls) -> tuple[str, ...]:
        """Nothing: without an address there is no server. Where one is named, it is asked."""
        return ()

    def load(self, entry: Path, options: EngineOptions) -> LoadedModel:
        """Have the server load a model file, or look at the model that it has.

        Raises:
            UnavailableError: the server doesn't answer; later it may.
            InvalidModelError: the server can't load it, or has no such model.
            UnsupportedError: ``strict``, and the server runs it elsewhere or doesn't tell.
        """
        client = OipClient(self._url)
        try:
            return self._load(client, entry, options)
        except BaseException:
            client.close()
            raise

    def _load(self, client: OipClient, entry: Path, options: EngineOptions) -> LoadedModel:
        about = client.server()
        if self._repository is not None:
            name = _entry_name(entry)
            with self._lock:
                self._users[name] += 1
        else:
            name = self._model
        release = partial(self._withdraw, name)
        try:
            if self._repository is not None:
                _write(self._repository / name, entry)
                self._control(client, name, "load")
            if not client.ready(name):
                msg = f"{client.url} says that model {name!r} is not ready"
                raise _refused(msg)
            described = _metadata(client, name)
            model = ExternalModel(client, about, described, release=release)
            _check_strict(model, options)
        except EdgeFleetError:
            release()
            raise
        return model

    def _control(self, client: OipClient, name: str, verb: str) -> None:
        path = f"/v2/repository/models/{name}/{verb}"
        answer = client.call("POST", path, b"{}", timeout_s=LOAD_S)
        if not answer.ok:
            msg = f"{client.url} can't {verb} the model: {answer.said}"
            cure = "start Triton with --model-control-mode=explicit on the same repository"
            raise InvalidModelError(msg, cure=cure)

    def _withdraw(self, name: str) -> None:
        """Unload a model of ours that nobody uses any more, and remove its entry."""
        if self._repository is None:
            return
        with self._lock:
            self._users[name] -= 1
            if self._users[name]:
                return
            del self._users[name]
        client = OipClient(self._url)
        try:
            self._control(client, name, "unload")
        except EdgeFleetError as error:
            _log.warning("%s", error.message)
        finally:
            client.close()
        shutil.rmtree(self._repository / name, ignore_errors=True)


class ExternalModel(LoadedModel):
    """A model that another server runs."""

    def __init__(
        self,
        client: OipClient,
        server: ServerInfo,
        model: ModelInfo,
        *,
        release: Callable[[], None],
    ) -> None:
        self.engine = f"{server.name or 'external'} {server.version}".strip()
        self.platform = model.platform
        told = tuple(filter(None, model.properties.get("providers", "").split(",")))
        self.providers = told or (UNTOLD,)
        self.interface = _interface(model)
        self._client = client
        self._name = model.name
        self._binary = _BINARY in server.extensions
        self._release: Callable[[], None] | None = release
        self._check = FeedCheck(self.interface)

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        if self._release is None:
            msg = "the model is closed"
            raise InferenceError(msg)
        feed = self._check.feed(inputs)
        names = self._check.wanted(outputs) if outputs else None
        body, headers = encode_request(feed, outputs=names, binary=self._binary)
        try:
            found = self._client.infer(self._name, body, headers).outputs
        except EdgeFleetError as error:
            if isinstance(error, InferenceError):
                raise
            raise InferenceError(error.message, cure=error.cure, retryable=True) from error
        missing = [name for name in names or () if name not in found]
        if missing:
            msg = f"{self._client.url} left out the outputs {', '.join(missing)}"
            raise InferenceError(msg)
        return {name: found[name] for name in names} if names else dict(found)

    def close(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            self._client.close()
            release()


def _entry_name(entry: Path) -> str:
    """The name of a model file's entry.

    The runtime lays files out in folders named by their digest: the path names the content.

    Raises:
        InvalidModelError: there is no such file.
    """
    if not entry.is_file():
        msg = f"there is no model file {str(entry)!r}"
        raise InvalidModelError(msg)
    return _PREFIX + hashlib.sha256(str(entry.absolute()).encode()).hexdigest()[:24]


def _write(folder: Path, entry: Path) -> None:
    """Make the entry of a Triton repository from a model file and what lies beside it.

    Copies: the runtime's own files are checked by digest, and the server may write to its.

    Raises:
        StorageFullError: no room; nothing is left.
    """
    if folder.exists():
        return
    # Triton completes the rest of the configuration from the ONNX file.
    filename = msgspec.json.encode(entry.name).decode()
    config = f'backend: "onnxruntime"\ndefault_model_filename: {filename}\n'
    staging = folder.with_name(f".{folder.name}.partial")
    try:
        with translate_full(folder):
            shutil.rmtree(staging, ignore_errors=True)
            shutil.copytree(entry.parent, staging / "1", copy_function=shutil.copyfile)
            (staging / "config.pbtxt").write_text(config, encoding="utf-8")
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _metadata(client: OipClient, name: str) -> ModelInfo:
    try:
        return client.model(name)
    except InferenceError as error:
        raise InvalidModelError(error.message) from error


def _interface(model: ModelInfo) -> Interface:
    try:
        inputs, outputs = (
            tuple(convert(tensor, TensorSpec, from_attributes=True) for tensor in tensors)
            for tensors in (model.inputs, model.outputs)
        )
    except msgspec.ValidationError as error:
        msg = f"model {model.name!r} has a tensor that can't be served: {error}"
        raise InvalidModelError(msg) from error
    return Interface(inputs=inputs, outputs=outputs)


def _check_strict(model: ExternalModel, options: EngineOptions) -> None:
    if options.strict and options.providers and model.providers[0] != options.providers[0]:
        msg = f"the server runs the model on {model.providers[0]}, not on {options.providers[0]}"
        raise UnsupportedError(msg, cure="allow fallback, and trust the server's configuration")


def _refused(message: str) -> InvalidModelError:
    return InvalidModelError(message, cure="look at the server's own log")
