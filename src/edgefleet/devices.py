"""A device as the user holds it: what is known of it, requests and orders to it."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from edgefleet.actor import current_actor
from edgefleet.capabilities import require
from edgefleet.errors import (
    ConflictError,
    EdgeFleetError,
    InferenceError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from edgefleet.interfaces.abilities import CanInvoke, CanStreamLogs
from edgefleet.protocol import inference, orders, tensors
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.report import read_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.interfaces.abilities import Reply
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.values import DeviceInfo
    from edgefleet.protocol.documents import Document
    from edgefleet.protocol.report import Report


class Device:
    """A device of a fleet, as it was when asked for; ask the fleet again for a newer look."""

    def __init__(self, deployer: Deployer, info: DeviceInfo) -> None:
        self.deployer = deployer
        self.info = info
        self.name = info.name

    def __repr__(self) -> str:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(self.info.labels.items()))
        return f"<device {self.name} in {self.deployer.name}/{self.info.group} {labels}>"

    def _repr_html_(self) -> str:
        return self.info._repr_html_()

    def infer(
        self,
        model: str,
        inputs: NDArray[Any] | Mapping[str, NDArray[Any]] | Sequence[Any],
        *,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        timeout_s: float = 30.0,
    ) -> dict[str, NDArray[Any]]:
        """Send a request to the device's own endpoint and return its outputs by name.

        Args:
            model: name it is served under.
            inputs: arrays by input name, or one array for a model with one input; cast to the
                model's dtype where that loses only precision.
            version: ask for this version only.
            outputs: names wanted; None for all.
            timeout_s: give up after so many seconds.

        Raises:
            UnsupportedError: the deployer can't reach devices from here.
            NotFoundError: the device doesn't serve that model or version.
            InvalidInputError: the device refuses the inputs.
            UnavailableError: the device doesn't answer, or is overloaded.
        """
        backend = require(self.deployer, CanInvoke)
        path = f"/v2/models/{quote(model, safe='')}"
        if version is not None:
            path += f"/versions/{quote(version, safe='')}"
        about = json.loads(self._answered(backend.invoke(self.name, path, timeout_s=timeout_s)))
        arrays = _arrays(inputs, about["inputs"])
        body, headers = inference.encode_request(arrays, outputs=outputs)
        reply = backend.invoke(
            self.name, f"{path}/infer", body=body, headers=headers, timeout_s=timeout_s
        )
        self._answered(reply)
        length = reply.headers.get(inference.HEADER_LENGTH.lower())
        response = inference.decode_response(reply.body, None if length is None else int(length))
        return dict(response.outputs)

    def status(self, *, timeout_s: float = 30.0) -> Report:
        """The device's newest report, from itself: the cloud's copy may be older.

        Raises:
            UnsupportedError: the deployer can't reach devices, or the runtime there is too old.
            UnavailableError: the device doesn't answer.
        """
        return read_report(self._ordered(orders.STATUS, None, timeout_s))

    def rollback(self, *, reason: str = "", timeout_s: float = 30.0) -> orders.RollbackAnswer:
        """Have this device serve the release before at once, until a higher pointer comes.

        For an emergency on one device: a group goes back by `Fleet.rollback`. The device keeps its
        pointer, so any newer one ends this, a step of a running rollout too: stop that first. The
        same again changes nothing.

        Args:
            reason: for people; the device's report holds it, with who and when.
            timeout_s: give up after so many seconds. What has begun on the device goes on.

        Returns:
            What the device runs now; ``changed`` is False where it ran no other before.

        Raises:
            NotFoundError: no release to go back to is on this device.
            ConflictError: a newer pointer came meanwhile.
            UnsupportedError: as `status`.
            UnavailableError: the device doesn't answer, or is busy.
        """
        order = orders.RollbackOrder(by=_actor(), reason=reason[: orders.MAX_REASON])
        return decode(orders.RollbackAnswer, self._ordered(orders.ROLLBACK, order, timeout_s))

    def capture(
        self,
        model: str,
        *,
        count: int = 1,
        seconds: float = 300.0,
        reason: str = "",
        order: str | None = None,
        timeout_s: float = 30.0,
    ) -> orders.CaptureAnswer:
        """Have the next requests of a model kept as samples, whatever share is recorded else.

        They come with the device's telemetry, as far as its spool has room; inputs are among them
        where the profile's ``recorded`` says ``sample_inputs = true``.

        Args:
            model: name it is served under.
            count: how many requests, at most `orders.MAX_COUNT`.
            seconds: when that many didn't come, it ends.
            reason: for people; the samples hold it.
            order: the answer's ``id`` of an earlier call, to ask what became of that one.
            timeout_s: give up after so many seconds.

        Raises:
            NotFoundError: the device doesn't serve that model.
            InvalidInputError: a number is out of bounds.
            UnsupportedError: as `status`.
            UnavailableError: the device doesn't answer, or has too many orders already.
        """
        asked = orders.CaptureOrder(
            id=order or uuid.uuid4().hex,
            model=model,
            count=count,
            seconds=seconds,
            by=_actor(),
            reason=reason[: orders.MAX_REASON],
        )
        return decode(orders.CaptureAnswer, self._ordered(orders.CAPTURE, asked, timeout_s))

    def _ordered(self, path: str, order: Document | None, timeout_s: float) -> bytes:
        backend = require(self.deployer, CanInvoke)
        body = None if order is None else encode(order)
        reply = backend.invoke(self.name, path, body=body, timeout_s=timeout_s)
        if reply.status == 404 and "cure" not in _said(reply):  # from its endpoint
            raise UnsupportedError(
                f"the runtime on {self.name} takes no orders",
                cure="update edgefleet-runtime there",
                provider=self.deployer.provider,
            )
        return self._answered(reply, path.removeprefix(orders.PREFIX))

    def log(self, *, last: int = 100) -> tuple[str, ...]:
        """The newest lines of the runtime's log, oldest first, where the deployer can read it."""
        return require(self.deployer, CanStreamLogs).device_log(self.name, last=last)

    def _answered(self, reply: Reply, operation: str = "infer") -> bytes:
        if reply.status < 400:
            return reply.body
        told = _said(reply)
        said = str(told.get("error") or f"status {reply.status}")
        kinds: dict[int, type[EdgeFleetError]]
        kinds = {
            400: InvalidInputError,
            404: NotFoundError,
            409: ConflictError,
            429: UnavailableError,
            503: UnavailableError,
        }
        kind = kinds.get(reply.status, InferenceError)
        raise kind(
            f"{self.name}: {said}",
            cure=told.get("cure"),
            provider=self.deployer.provider,
            operation=operation,
        )


def _actor() -> str:
    return current_actor()[: orders.MAX_ACTOR]


def _said(reply: Reply) -> dict[str, Any]:
    """What a refusal says; empty where that is no JSON object."""
    try:
        told = json.loads(reply.body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _arrays(
    inputs: NDArray[Any] | Mapping[str, NDArray[Any]] | Sequence[Any],
    wanted: list[dict[str, Any]],
) -> dict[str, NDArray[Any]]:
    import numpy as np  # noqa: PLC0415 - heavy, and only needed for requests

    names = [spec["name"] for spec in wanted]
    if hasattr(inputs, "keys"):
        given: dict[str, Any] = dict(inputs)
    elif len(names) == 1:
        given = {names[0]: inputs}
    else:
        msg = f"the model has {len(names)} inputs"
        raise InvalidInputError(msg, cure=f"give a mapping with {', '.join(names)}")
    types = {spec["name"]: spec["datatype"] for spec in wanted}
    arrays = {}
    for name, value in given.items():
        array = np.asarray(value)
        if name in types and types[name] != "BYTES":
            dtype = tensors.dtype_of(types[name])
            if not np.can_cast(array.dtype, dtype, casting="same_kind"):
                msg = f"input {name!r} holds {array.dtype}, the model takes {dtype}"
                raise InvalidInputError(msg, cure=f"convert it with .astype('{dtype}')")
            array = array.astype(dtype, copy=False)
        arrays[name] = array
    return arrays
