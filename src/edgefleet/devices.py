"""A device as the user holds it: what is known of it, requests and orders to it."""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from edgefleet.actor import current_actor
from edgefleet.capabilities import require
from edgefleet.errors import (
    CancelledError,
    ConflictError,
    EdgeFleetError,
    InferenceError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
    WaitTimeoutError,
)
from edgefleet.interfaces.abilities import CanInvoke, CanStreamLogs
from edgefleet.interfaces.progress import Bytes, Status
from edgefleet.protocol import inference, orders, tensors
from edgefleet.protocol.documents import decode, encode, parse
from edgefleet.protocol.layout import BundleLayout
from edgefleet.protocol.report import read_report
from edgefleet.protocol.target import TARGET_LABEL
from edgefleet.protocol.typed import UNREADABLE, decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.interfaces.abilities import Reply
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.registry import Registry
    from edgefleet.interfaces.values import DeviceInfo
    from edgefleet.protocol.documents import Document
    from edgefleet.protocol.report import Report


FIRST_LOOK_S = 0.25  # until the first look at how far a trial is; then twice that, …
LONGEST_LOOK_S = 5.0
ORDER_S = 30.0  # for an answer to one order
CANCEL_S = 10.0  # for telling a device that nobody waits for its trial any more


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    datatype: str


class _Metadata(msgspec.Struct, frozen=True):
    """What is read of a model's metadata, Open Inference Protocol v2."""

    inputs: tuple[_Tensor, ...]


class Device:
    """A device of a fleet, as it was when asked for; ask the fleet again for a newer look.

    Args:
        deployer: reaches it.
        info: what is known of it.
        registry: gives the fleet's registry, for trials.
    """

    def __init__(
        self,
        deployer: Deployer,
        info: DeviceInfo,
        *,
        registry: Callable[[], Registry] | None = None,
    ) -> None:
        self._registry = registry
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
            InferenceError: it fails, or answers what no runtime does.
        """
        backend = require(self.deployer, CanInvoke)
        path = f"/v2/models/{quote(model, safe='')}"
        if version is not None:
            path += f"/versions/{quote(version, safe='')}"
        about = self._answered(backend.invoke(self.name, path, timeout_s=timeout_s))
        with self._reading():
            wanted = parse(_Metadata, about, "metadata of the model").inputs
        arrays = _arrays(inputs, {tensor.name: tensor.datatype for tensor in wanted})
        body, headers = inference.encode_request(arrays, outputs=outputs)
        reply = backend.invoke(
            self.name, f"{path}/infer", body=body, headers=headers, timeout_s=timeout_s
        )
        self._answered(reply)
        with self._reading():
            length = inference.read_header_length(
                reply.headers.get(inference.HEADER_LENGTH.lower())
            )
            return dict(inference.decode_response(reply.body, length).outputs)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Have what can't be read in an answer be the device's fault, not the caller's."""
        try:
            yield
        except InvalidInputError as error:
            raise InferenceError(
                f"{self.name} answered with what can't be read: {error.message}",
                cure="check that edgefleet-runtime is what answers there, and update it",
                provider=self.deployer.provider,
                operation="infer",
            ) from error

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
        where the group's telemetry policy says ``inputs = ["MODEL/INPUT"]``.

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

    @property
    def target(self) -> str:
        """The hardware target that its labels name; empty where they name none."""
        return self.info.labels.get(TARGET_LABEL, "")

    def trial(
        self,
        bundle: BundleLayout | Path | str,
        *,
        variants: Sequence[str] = (),
        max_bytes: int | None = None,
        calls: int = 200,
        seconds: float = 2.0,
        reason: str = "",
        timeout_s: float = 1800.0,
        progress: bool = True,
        say: Callable[[str], object] | None = None,
    ) -> orders.TrialAnswer:
        """Have a bundle's variants tested and timed on this device, beside what serves there.

        Its blobs are stored in the registry without a version; the device fetches them from there,
        one variant after the other, and keeps none. Interrupted here, it ends there.

        Args:
            bundle: a bundle, or its folder.
            variants: names of those to measure; empty for all.
            max_bytes: most that the device may fetch for it, beside its own ``--trial-bytes``.
            calls: most calls that are timed, a variant.
            seconds: of running, after which five calls suffice.
            reason: for people.
            timeout_s: end it on the device after so many seconds.
            progress: show how far it is, where a person looks.
            say: told how far it is, in place of that.

        Returns:
            Figures a variant; one that doesn't work there, or that the device may not try, says
            why.

        Raises:
            UnsupportedError: the deployer can't reach devices, the runtime there is too old, or
                another server runs its models.
            ConflictError: no pointer has come to the device yet, so it has no access to the
                registry.
            UnavailableError: another trial goes on there, it doesn't answer, it was restarted
                meanwhile, or the trial failed as a whole, such as for lack of access.
            WaitTimeoutError: it wasn't done in time.
            CancelledError: somebody else cancelled it.
        """
        layout = bundle if isinstance(bundle, BundleLayout) else BundleLayout(Path(bundle))
        order = orders.TrialOrder(
            id=uuid.uuid4().hex,
            bundle=layout.digest,
            variants=tuple(variants),
            max_bytes=max_bytes,
            calls=calls,
            seconds=seconds,
            within_s=timeout_s,
            by=_actor(),
            reason=reason[: orders.MAX_REASON],
        )
        if self._registry is None:
            msg = f"{self.name} was made without a registry to put the bundle into"
            raise UnsupportedError(msg, cure="take it from a fleet: fleet.device(NAME)")
        registry = self._registry()
        total = sum(descriptor.size for descriptor in layout.blobs())
        shown = progress and say is None
        with Bytes(f"candidates for {self.name}", total, enabled=shown) as advance:
            registry.put_bundle(layout, progress=advance)
        with Status(f"trial on {self.name}", enabled=shown) as line:
            return self._tried(order, timeout_s, say or line.update)

    def _tried(
        self, order: orders.TrialOrder, timeout_s: float, say: Callable[[str], object]
    ) -> orders.TrialAnswer:
        try:
            answer = self._awaited(order, timeout_s, say)
        except BaseException:
            end = orders.TrialOrder(id=order.id, cancel=True, by=order.by)
            with contextlib.suppress(EdgeFleetError):  # it may not have begun, or be over
                self._ordered(orders.TRIAL, end, CANCEL_S)
            raise
        if answer.state == "done":
            return answer
        what = f"the trial on {self.name} {_ENDS[answer.state]}: {answer.reason}"
        kind = CancelledError if answer.state == "cancelled" else UnavailableError
        raise kind(what, cure="order it again", provider=self.deployer.provider)

    def _awaited(
        self, order: orders.TrialOrder, timeout_s: float, say: Callable[[str], object]
    ) -> orders.TrialAnswer:
        deadline, pause_s = time.monotonic() + timeout_s, FIRST_LOOK_S
        answer = self._trial_told(order)
        while not answer.over:
            if time.monotonic() > deadline:
                msg = f"the trial on {self.name} is not done after {timeout_s:g} s"
                raise WaitTimeoutError(msg, cure="give it a longer timeout_s")
            done = len(answer.figures)
            say(f"trial on {self.name}: {answer.variant or answer.state}, {done} done")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_LOOK_S)
            answer = self._looked(order, answer)
        return answer

    def _trial_told(self, order: orders.TrialOrder) -> orders.TrialAnswer:
        try:
            told = self._ordered(orders.TRIAL, order, ORDER_S)
        except NotFoundError as error:
            if "no order" not in error.message:
                raise
            raise UnsupportedError(
                f"the runtime on {self.name} takes no trials",
                cure="update edgefleet-runtime there",
                provider=self.deployer.provider,
            ) from error
        return decode(orders.TrialAnswer, told)

    def _looked(self, order: orders.TrialOrder, before: orders.TrialAnswer) -> orders.TrialAnswer:
        """How far a trial is; as before, where the device can't be reached for a while."""
        try:
            return self._trial_told(orders.TrialOrder(id=order.id, by=order.by))
        except UnavailableError as error:
            if not error.retryable:
                raise
            return before

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
            501: UnsupportedError,
            503: UnavailableError,
        }
        kind = kinds.get(reply.status, InferenceError)
        raise kind(
            f"{self.name}: {said}",
            cure=told.get("cure"),
            provider=self.deployer.provider,
            operation=operation,
        )


_ENDS = {"failed": "failed", "interrupted": "was interrupted", "cancelled": "was cancelled"}


def _actor() -> str:
    return current_actor()[: orders.MAX_ACTOR]


def _said(reply: Reply) -> dict[str, Any]:
    """What a refusal says; empty where that is no JSON object."""
    try:
        return decoder(dict[str, Any]).decode(reply.body)
    except UNREADABLE:
        return {}


def _arrays(
    inputs: NDArray[Any] | Mapping[str, NDArray[Any]] | Sequence[Any],
    types: Mapping[str, str],
) -> dict[str, NDArray[Any]]:
    """The inputs by name, as the model takes them: ``types`` are its datatypes by input."""
    import numpy as np  # noqa: PLC0415 - heavy, and only needed for requests

    names = list(types)
    if hasattr(inputs, "keys"):
        given: dict[str, Any] = dict(inputs)
    elif len(names) == 1:
        given = {names[0]: inputs}
    else:
        msg = f"the model has {len(names)} inputs"
        raise InvalidInputError(msg, cure=f"give a mapping with {', '.join(names)}")
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
