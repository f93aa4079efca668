"""One bundle for several kinds of hardware: what was tried, what it cost, what each device gets.

Run it anywhere: `python examples/optimize_for_devices.py` uses the embedded fleet. It leaves the
report as `report.json` and `candidates.png` in the current folder.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from digits_data import Images, calibration, held_out
from numpy.typing import NDArray

import edgefleet as ef
from edgefleet.optimization import report_of

HERE = Path(__file__).parent


def evaluate(predict: Callable[[Images], Mapping[str, NDArray[Any]]]) -> ef.Scores:
    """Accuracy on images that no training saw, and of each digit by itself."""
    images, labels = held_out()
    right = predict(images)["label"] == labels
    return ef.Scores(
        float(right.mean()),
        {str(digit): float(right[labels == digit].mean()) for digit in range(10)},
    )


with ef.connect() as fleet:
    fleet.enroll("gateway-1", group="line-4", labels={"target": "x86-cpu"})
    fleet.enroll("pi-1", group="line-4", labels={"target": "raspberry-pi-5"})

    run = fleet.train(HERE / "train_digits.py", params={"epochs": 20, "hidden": 256}).wait()
    bundle = ef.optimize(
        run.model,
        targets=["x86-cpu", "raspberry-pi-5", "jetson-orin"],
        calibration=calibration(),
        evaluate=evaluate,
        max_accuracy_drop=0.01,  # what all digits together may lose
        min_class_accuracy=0.85,  # what each digit must keep
        labels=[str(digit) for digit in range(10)],
    )
    print(bundle.report)
    bundle.report.save("report.json")
    bundle.report.plot("candidates.png")

    for row in bundle.report.targets:
        print(f"{row.target} gets {row.variant}: {row.why}")
    worst = bundle.report.row("int8")
    print(f"int8 is worst at {worst.worst_class}: {worst.worst_class_accuracy}")

    model = fleet.push(bundle, "digits")
    print(fleet.plan(model, to="line-4"))
    fleet.deploy(model, to="line-4").wait(min_attested=0.95, timeout_s=60)

    # Whoever pulls the version later sees what it cost, without the times of this machine.
    with tempfile.TemporaryDirectory() as folder:
        pulled = fleet.registry.pull(model.reference, Path(folder) / "bundle")
        print(report_of(pulled).row("int8").accuracy_drop)
