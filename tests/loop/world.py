"""A fleet of mailboxes without processes, a real registry and trainer, and a loop over them.

The model tells two classes of two features, both of which tell the class by their sign. The active
model looks at the first alone, which then breaks: what is trained on newer samples looks at the
second, and is as good on the frozen test set.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

import edgefleet
from edgefleet.errors import TrainingFailedError
from edgefleet.loop.loop import Loop
from edgefleet.loop.reading import read_spec
from edgefleet.loop.sources import DriftSeen, Labelled
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.report import Health, ModelReport, Report, ShadowReport
from edgefleet_template.mailboxes import Mailboxes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.loop.spec import DatasetSpec
    from edgefleet.loop.status import LoopStatus

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
GROUP = "line-3"
DEVICES = ("cam-06", "cam-07")

CONFIG = """\
[profiles.default]
registry = "local"
trainer = "local"
telemetry = "local"
state = "local"
deployers = ["template"]

[profiles.default.local]
root = "fleet"

[profiles.default.template]
root = "devices"
"""

TRAIN = """\
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

held = np.load(Path(os.environ["EDGEFLEET_DATA_DIR"]) / "samples.npz")
x, labels = held["x"], held["labels"]
weights = np.linalg.lstsq(x, np.eye(2)[labels] - 0.5, rcond=None)[0].astype(np.float32)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])],
    "fitted",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
    [numpy_helper.from_array(weights, "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.save(model, Path(os.environ["EDGEFLEET_OUTPUT_DIR"]) / "model.onnx")
"""


def data(count: int, *, seed: int, broken: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """``float32[count, 2]`` and classes; of broken ones the first feature tells nothing."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    x = (labels * 2 - 1)[:, np.newaxis] * random.uniform(0.5, 1.5, (count, 2))
    if broken:
        x[:, 0] = random.permutation(x[:, 0])
    return x.astype(np.float32), labels.astype(np.int64)


def onnx_model(path: Path, weights: NDArray[Any]) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "given",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


class Simulated:
    """What devices gathered and people labelled, as the test says."""

    def __init__(self) -> None:
        self.windows: list[tuple[datetime, str]] = []
        self.found: list[tuple[datetime, str, NDArray[Any], int | None]] = []
        self.remembered: list[bool] = []

    def gather(self, count: int, *, at: datetime, labelled: bool = True, seed: int = 1) -> None:
        x, labels = data(count, seed=seed, broken=True)
        for index in range(count):
            name = f"{at:%H%M%S}-{seed}-{index}"
            label = int(labels[index]) if labelled else None
            self.found.append((at, name, x[index], label))

    def _since(
        self, since: datetime | None
    ) -> list[tuple[datetime, str, NDArray[Any], int | None]]:
        return [one for one in self.found if since is None or one[0] >= since]

    def drift(self, version: str, groups: Sequence[str], since: datetime | None) -> DriftSeen:
        said = {verdict for at, verdict in self.windows if since is None or at >= since}
        verdict = next((one for one in ("moved", "stable") if one in said), "unknown")
        return DriftSeen({"x[0]": verdict}, dict.fromkeys(DEVICES, verdict))

    def labelled(self, model: str, groups: Sequence[str], since: datetime | None) -> int:
        return sum(one[3] is not None for one in self._since(since))

    def new_labels(self, model: str, groups: Sequence[str], since: datetime | None) -> int:
        return sum(one[3] is not None and (since is None or one[0] > since) for one in self.found)

    def samples(
        self,
        model: str,
        groups: Sequence[str],
        since: datetime | None,
        spec: DatasetSpec,
        *,
        remembered: bool,
    ) -> Labelled:
        self.remembered.append(remembered)
        found = self._since(since)
        known = [one for one in found if one[3] is not None][: spec.most]
        return Labelled(
            version=digest_of(repr([one[1:] for one in known]).encode()),
            reference="signs:1",
            total=len(found),
            ids=[one[1] for one in known],
            inputs={"x": np.array([one[2] for one in known], np.float32).reshape(-1, 2)},
            labels=np.array([one[3] for one in known], np.int64),
        )


class World:
    """A folder with a fleet, a version that serves, and ``loop.yaml``."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        (folder / "edgefleet.toml").write_text(CONFIG)
        (folder / "train.py").write_text(TRAIN)
        x, labels = data(200, seed=7, broken=False)
        np.savez(folder / "frozen.npz", x=x, labels=labels)
        self.sources = Simulated()
        self.now = START
        self.slept_s = 0.0
        self.said: list[str] = []
        self.write_spec(**changes)
        self.fleet: Fleet = edgefleet.connect(config=folder / "edgefleet.toml")
        for device in DEVICES:
            self.fleet.enroll(device, group=GROUP)
        first = onnx_model(folder / "first.onnx", np.array([[-1, 1], [0, 0]]))
        self.first: ModelVersion = self.fleet.push(first, "signs", progress=False)
        self.fleet.deploy(self.first, to=GROUP)
        self.converge()

    def write_spec(self, **changes: Any) -> Path:
        spec = {
            "name": "keep-signs",
            "model": "signs",
            "groups": [GROUP],
            "trigger": {"labelled": 40},
            "dataset": {"least": 40},
            "train": {"script": "train.py"},
            "compare": {"frozen": "frozen.npz", "max_loss": 0.02, "min_gain": 0.05},
            "shadow": {"requests": 100, "min_agreement": 0.3},
            **changes,
        }
        path = self.folder / "loop.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in spec.items() if v is not None}))
        return path

    def loop(
        self,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> Loop:
        """The loop as a new process has it; without a clock of its own it sleeps at no cost."""
        return Loop(
            read_spec(self.folder / "loop.yaml"),
            sources=lambda _fleet: self.sources,
            now=lambda: self.now,
            clock=clock or (lambda: self.slept_s),
            sleep=sleep or self._sleep,
            files=self.folder / "files",
        )

    def _sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    def run(self, **options: Any) -> LoopStatus:
        return self.loop().run(self.fleet, say=self.said.append, **options)

    def drive(self, *, until: str = "", turns: int = 20, **options: Any) -> LoopStatus:
        """Run it again and again, while training ends and devices follow, until it waits for that.

        Ends with the turn, too.
        """
        for _ in range(turns):
            status = self.run(**options)
            options.pop("now", None)
            if status.state != "waiting" or (until and until in status.why):
                return status
            if status.turn is not None and status.turn.step == "train":
                with contextlib.suppress(TrainingFailedError):
                    self.fleet.trainer.get(status.turn.run).wait(progress=False)
            self.converge()
        msg = f"no end after {turns} runs: {self.said}"
        raise AssertionError(msg)

    def converge(
        self,
        *,
        compared: int = 0,
        agreement: float = 0.6,
        rejects: Sequence[str] = (),
        devices: Sequence[str] = DEVICES,
    ) -> None:
        """Every device reports what its pointer gives it; a shadow has compared so much."""
        pointer = self.fleet.deployers["template"].pointer(GROUP)
        assert pointer is not None
        for device in devices:
            wanted = pointer.release_for(device)
            release = self.fleet.registry.get_release(wanted)
            refused = any(m.version in rejects for m in release.models)
            report = Report(
                sequence=pointer.number,
                time=self.now,
                state="rejected" if refused else "active",
                runtime="test",
                health=Health(pid=1, started=START),
                fleet=pointer.fleet,
                epoch=pointer.epoch,
                number=pointer.number,
                wanted=wanted,
                running=None if refused else wanted,
                models=tuple(
                    ModelReport(
                        name=m.name,
                        version=m.version,
                        bundle=m.bundle,
                        role=m.role,
                        state="rejected" if m.version in rejects else "active",
                        reason="no such operator" if m.version in rejects else None,
                        shadow=ShadowReport(compared=compared, agreement=agreement)
                        if m.role == "shadow" and compared
                        else None,
                    )
                    for m in release.models
                ),
            )
            out = Mailboxes(self.folder / "devices" / "edgefleet").outgoing(device)
            (out / "report.json").write_bytes(report.encoded())

    @property
    def serving(self) -> Mapping[str, str]:
        """Version by role, as the group's release has it."""
        release = self.fleet.group_status(GROUP).release
        assert release is not None
        return {m.role: m.version for m in self.fleet.registry.get_release(release).models}

    def counts(self) -> tuple[int, int, Sequence[str]]:
        """Training runs, versions, and what was done to the group, oldest first."""
        actions = [entry.action for entry in reversed(self.fleet.history(GROUP))]
        return (
            len(self.fleet.trainer.list()),
            len(self.fleet.registry.versions("signs")),
            actions,
        )

    def later(self, **span: float) -> None:
        self.now += timedelta(**span)
