"""A device as the user holds it: what is known of it, and requests to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from edgefleet.capabilities import require
from edgefleet.errors import InferenceError, InvalidInputError, NotFoundError, UnavailableError
from edgefleet.interfaces.abilities import CanInvoke, CanStreamLogs
from edgefleet.protocol import inference, tensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.interfaces.abilities import Reply
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.values import DeviceInfo


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

    def log(self, *, last: int = 100) -> tuple[str, ...]:
        """The newest lines of the runtime's log, oldest first, where the deployer can read it."""
        return require(self.deployer, CanStreamLogs).device_log(self.name, last=last)

    def _answered(self, reply: Reply) -> bytes:
        if reply.status < 400:
            return reply.body
        try:
            said = str(json.loads(reply.body)["error"])
        except (ValueError, KeyError, TypeError):
            said = f"status {reply.status}"
        kinds: dict[
            int, type[InferenceError | NotFoundError | InvalidInputError | UnavailableError]
        ]
        kinds = {
            400: InvalidInputError,
            404: NotFoundError,
            429: UnavailableError,
            503: UnavailableError,
        }
        kind = kinds.get(reply.status, InferenceError)
        raise kind(f"{self.name}: {said}", provider=self.deployer.provider, operation="infer")


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
