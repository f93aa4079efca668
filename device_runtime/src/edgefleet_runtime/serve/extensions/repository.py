"""Who may load and unload models by request: nobody, unless the server's owner passes a control."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from edgefleet.errors import InvalidInputError, ThrottledError

MAX_WAITING = 16  # calls of the model control that run or wait
_FILE = "file:"
_T = TypeVar("_T")


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a repository, as an index lists it.

    Attributes:
        state: READY answers requests, UNAVAILABLE doesn't, and ``reason`` may say why.
    """

    name: str
    version: str = ""
    state: Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING"] | None = None
    reason: str = ""


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to load.

    Attributes:
        config: a model configuration in JSON in place of the repository's; None for that one.
        files: by path in the model's folder, in place of the repository's; empty for those.
    """

    name: str
    config: str | None = None
    files: Mapping[str, bytes] = {}


class ModelControl(Protocol):
    """Loads and unloads models on request; called on a thread of its own, one call at a time.

    Each may raise an `EdgeFleetError`, which becomes the answer. A control that takes no overrides
    raises `UnsupportedError` for a request with ``config`` or ``files``.
    """

    def index(self) -> Sequence[ModelState]:
        """Every model that could be loaded, and those that are."""

    def load(self, request: LoadRequest) -> None:
        """Serve the model, or serve it anew; returns when it answers requests."""

    def unload(self, name: str, *, dependents: bool) -> None:
        """Serve the model no longer; with ``dependents`` also what was loaded for it alone."""


class ControlQueue:
    """Calls a model control on a thread of its own, one call at a time, and bounds what waits."""

    def __init__(self, control: ModelControl) -> None:
        self._control = control
        self._worker: ThreadPoolExecutor | None = None
        self._waiting = 0

    async def run(self, call: Callable[[ModelControl], _T]) -> _T:
        """The call's result.

        Raises:
            ThrottledError: too many calls wait.
        """
        if self._waiting >= MAX_WAITING:
            raise ThrottledError(f"{MAX_WAITING} calls of the model control are waiting")
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="edgefleet-control")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._worker, call, self._control)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stop what waits."""
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = None


def refused() -> InvalidInputError:
    """The answer where there is no control."""
    return InvalidInputError(
        "model control is off here: models come and go as the device's owner decides",
        cure="ask the owner; a server of a model repository offers it on loopback and on a Unix "
        "socket, and with --model-control on other addresses",
    )


def rows_of(states: Sequence[ModelState], *, ready: bool) -> list[dict[str, str]]:
    """An index as clients read it; with ``ready`` only what answers requests."""
    return [
        {
            "name": state.name,
            "version": state.version,
            "state": state.state or "",
            "reason": state.reason,
        }
        for state in states
        if not ready or state.state == "READY"
    ]


def load_request(name: str, parameters: Mapping[str, Any]) -> LoadRequest:
    """A load request's parameters: ``config`` and ``file:PATH``.

    Raises:
        InvalidInputError: another parameter, or one of the wrong type.
    """
    config: str | None = None
    files: dict[str, bytes] = {}
    for key, value in parameters.items():
        if key == "config" and isinstance(value, str):
            config = value
        elif key.startswith(_FILE) and isinstance(value, bytes | str):
            files[key.removeprefix(_FILE)] = _content(key, value)
        else:
            raise InvalidInputError(
                f"parameter {key[:100]!r} of a load request is unknown or of a wrong type",
                cure="config takes a string, file:PATH takes bytes (base64 over REST)",
            )
    if files and config is None:  # Triton's rule: files replace the model, so nothing describes it
        raise InvalidInputError("files are given without a config that describes them")
    return LoadRequest(name=name, config=config, files=files)


def unload_dependents(parameters: Mapping[str, Any]) -> bool:
    """An unload request's only parameter.

    Raises:
        InvalidInputError: it isn't true or false.
    """
    value = parameters.get("unload_dependents", False)
    if not isinstance(value, bool):
        raise InvalidInputError("parameter unload_dependents must be true or false")
    return value


def _content(key: str, value: bytes | str) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as error:  # binascii.Error is one; so is text beyond ASCII
        raise InvalidInputError(f"parameter {key[:100]!r} is not base64: {error}") from error
