"""Close the loop: data moves, devices notice, people label, a new model proves itself and serves.

Three devices read digits. Then somebody changes the lamp, and every picture comes out inverted. The
devices see that their data has moved, keep what they see, and `edgefleet.Loop` does the rest, one
call after another as cron would make them: `close_the_loop.yaml` says how.

    python examples/close_the_loop.py

It uses the embedded fleet in this folder, prints figures, and draws ``close_the_loop.png``.
"""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from digits_data import Images, Labels, accuracy, calibration, held_out, training_data
from matplotlib.figure import Figure

import edgefleet as ef
from edgefleet.analysis.dataset import Dataset
from edgefleet.errors import NotFoundError
from edgefleet.protocol.drift import Limits
from edgefleet.protocol.policy import CaptureRule, DriftPolicy, TelemetryPolicy

mpl.use("agg")
HERE = Path(__file__).parent
GROUP, DEVICES = "line-3", ("cam-06", "cam-07", "cam-08")
PATIENCE_S = 500.0  # for what a busy machine may take

# What the devices record: sketches of what they see, and images once these have moved.
POLICY = TelemetryPolicy(
    segment_max_age_s=0.5,
    drift=DriftPolicy(window_s=2.0, limits=Limits(min_count=40)),
    captures=(CaptureRule(name="moved", when="size(drifted) > 0", inputs=True, per_hour=10_000),),
    inputs=("digits/*",),
)


class Line:
    """The line with its cameras: images come, devices answer, and here it is known what is right.

    Args:
        fleet: of the devices.
    """

    def __init__(self, fleet: ef.Fleet) -> None:
        self.devices = [fleet.device(name) for name in DEVICES]
        self.inverted = False
        self.truth: dict[bytes, int] = {}
        self.shares: list[tuple[int, float]] = []  # right ones by number of images
        self.marks: list[tuple[int, str]] = []
        self._images, self._labels = _shuffled()
        self._next = self.sent = 0

    def send(self, count: int) -> float:
        """So many images to every device; the share of right answers."""
        right = 0
        for device in self.devices:
            for _ in range(count):
                image = self._images[self._next % len(self._images)]
                label = int(self._labels[self._next % len(self._images)])
                self._next += 1
                # A camera's noise: no two images are the same.
                noise = np.random.default_rng(self._next).normal(0, 0.02, image.shape)
                image = np.clip(image + noise, 0, 1).astype(np.float32)[np.newaxis]
                image = 1 - image if self.inverted else image
                self.truth[image.tobytes()] = label
                right += int(device.infer("digits", image)["label"][0]) == label
        self.sent += count * len(self.devices)
        share = right / (count * len(self.devices))
        self.shares.append((self.sent, share))
        return share

    def mark(self, text: str) -> None:
        """Remember when something happened."""
        self.marks.append((self.sent, text))
        print(f"[{self.sent:5} images] {text}")


def _shuffled() -> tuple[Images, Labels]:
    images, labels = training_data()
    order = np.random.default_rng(3).permutation(len(images))
    return images[order], labels[order]


def first_model(fleet: ef.Fleet) -> ef.ModelVersion:
    """Train, optimize and push the model that all begins with."""
    run = fleet.train(HERE / "train_digits.py", params={"epochs": 20}).wait()
    bundle = ef.optimize(
        run.model, targets=["x86-cpu"], calibration=calibration(1000), evaluate=accuracy
    )
    return fleet.push(bundle, "digits")


class Labelling:
    """What people do in Label Studio: look at the samples that came, and say what each shows.

    Args:
        fleet: whose samples.
        line: that knows what is right.
    """

    def __init__(self, fleet: ef.Fleet, line: Line) -> None:
        self._fleet, self._line = fleet, line
        self._all: Dataset | None = None  # its folder holds what was said of all of them
        self._since: datetime | None = None
        self._rounds = self.known = 0
        self.nothing = ""  # why the last round had nothing to look at

    @property
    def first(self) -> str:
        """The first sample of all, by its digest."""
        return "" if self._all is None else self._all.rows[0].sample

    def turn(self) -> int:
        """Label what came since the last time; how many samples have a label now."""
        began = datetime.now(UTC) - timedelta(seconds=10)  # segments may come late
        self._rounds += 1
        folder = HERE / "labelled" if self._all is None else HERE / "rounds" / str(self._rounds)
        try:
            new = self._fleet.dataset("digits", since=self._since, to=folder, progress=False)
        except NotFoundError as error:
            self.nothing = error.message
            return self.known
        tasks = new.export_label_studio(folder / "tasks", shape=(8, 8))
        (folder / "answers.json").write_text(json.dumps(self._answered(tasks, new)))
        self._all = self._all or new
        self.known += self._all.import_labels(folder / "answers.json").added
        self._since = began
        return self.known

    def _answered(self, tasks: Path, new: Dataset) -> list[dict[str, Any]]:
        """The tasks as Label Studio exports them once Ana has done them."""
        shows = {row.sample: self._line.truth[new.array(row).tobytes()] for row in new}
        answered: list[dict[str, Any]] = json.loads(tasks.read_text())
        for task in answered:
            choice = {
                "from_name": "class",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": [str(shows[task["data"]["sample"]])]},
            }
            task["annotations"] = [
                # One word for each sample: said again of the same one, it is the same word.
                {
                    "result": [choice],
                    "completed_by": "ana",
                    "updated_at": task["data"]["captured_at"],
                }
            ]
        return answered


def draw(line: Line, to: Path) -> None:
    """Accuracy over the images, and what happened when."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    at, shares = zip(*line.shares, strict=True)
    axes.plot(at, shares, marker="o", markersize=3)
    axes.set(xlabel="images", ylabel="share read right", ylim=(0, 1.05))
    axes.set_title("Accuracy on the line")
    for number, (where, text) in enumerate(line.marks):
        axes.axvline(where, color="0.6", linewidth=0.8)
        late = where > 0.6 * at[-1]
        axes.annotate(
            text.partition(":")[0],
            (where, 0.05 + 0.1 * number),
            fontsize=8,
            ha="right" if late else "left",
            xytext=(-3 if late else 3, 0),
            textcoords="offset points",
        )
    figure.savefig(to, dpi=120)


images, labels = held_out()
np.savez(HERE / "frozen.npz", X=images, labels=labels)
with ef.connect() as fleet:
    for name in DEVICES:
        fleet.enroll(name, group=GROUP, labels={"target": "x86-cpu"})
    fleet.deploy(first_model(fleet), to=GROUP).wait(timeout_s=PATIENCE_S)
    fleet.record(POLICY, to=GROUP).wait(timeout_s=PATIENCE_S)
    loop = ef.Loop.load(HERE / "close_the_loop.yaml", files=HERE / "loop-files")
    line = Line(fleet)
    people = Labelling(fleet, line)

    line.mark("the line runs")
    before = np.mean([line.send(20) for _ in range(2)])
    line.inverted = True
    line.mark("the lamp was changed: every image is inverted")
    drifted = line.send(20)

    deadline, step = time.monotonic() + PATIENCE_S, ""
    while True:
        line.send(12)
        status = loop.run(fleet)
        known = people.turn() if status.state == "waiting" else people.known
        if status.turn is not None and status.turn.step != step:
            if not step:
                line.mark(f"the devices noticed: {status.turn.trigger}")
            step = status.turn.step
            line.mark(f"{step}, {known} labelled samples: {status.why}")
        if status.state not in ("idle", "waiting"):
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"no end: {status}\nlabelling: {people.nothing}")
    print(status)
    line.mark(f"turn {status.state}: {status.turn and status.turn.version}")
    after = np.mean([line.send(20) for _ in range(2)])
    print(f"read right: {before:.1%}, inverted {drifted:.1%}, after the loop {after:.1%}")
    print(fleet.lineage.of_sample(people.first))
    draw(line, HERE / "close_the_loop.png")
    if status.state != "promoted" or after < 0.75 or drifted > 0.6:
        raise SystemExit("the loop did not bring the accuracy back")
