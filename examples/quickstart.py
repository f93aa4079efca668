"""The whole way of a model: train, optimize, push, deploy, serve, look, go back.

Run it anywhere: `python examples/quickstart.py` uses the embedded fleet, in `.edgefleet` in this
folder. Nothing in it changes when the profile names another provider.
"""

from pathlib import Path

from digits_data import accuracy, calibration, held_out

import edgefleet as ef

HERE = Path(__file__).parent

with ef.connect() as fleet:
    fleet.enroll("cam-06", group="line-3", labels={"target": "x86-cpu"})
    fleet.enroll("cam-07", group="line-3", labels={"target": "jetson-orin"})

    run = fleet.train(HERE / "train_digits.py", params={"epochs": 20}).wait()
    bundle = ef.optimize(
        run.model,
        targets=["x86-cpu", "jetson-orin"],
        calibration=calibration(),
        evaluate=accuracy,
        max_accuracy_drop=0.01,
    )
    print(bundle.report)

    model = fleet.push(bundle, "digits")
    print(fleet.plan(model, to="line-3"))
    deployment = fleet.deploy(model, to="line-3")
    deployment.wait(min_attested=0.95, timeout_s=60)
    print(deployment)

    images, labels = held_out()
    answers = fleet.device("cam-07").infer("digits", images)
    print("accuracy on cam-07:", (answers["label"] == labels).mean().round(3))

    print(fleet.why("cam-07"))
    fleet.rollback("line-3").wait(timeout_s=60)
    for entry in fleet.history("line-3"):
        print(entry.number, entry.action, *entry.models)
