"""The way of a model on Kubernetes: a Job trains, an OCI registry keeps, a DaemonSet serves.

The lines are those of ``quickstart.py``; the profile and the devices are what differs. Devices are
there before the script is: nodes that were enrolled, or those of the mock cloud:

    edgefleet mock kubernetes --devices 2 --group line-3 -- python kubernetes_first_fleet.py
"""

from pathlib import Path

from digits_data import accuracy, calibration, held_out

import edgefleet as ef

HERE = Path(__file__).parent

with ef.connect() as fleet:
    run = fleet.train(HERE / "train_digits.py", params={"epochs": 20}).wait()
    bundle = ef.optimize(
        run.model,
        targets=["x86-cpu"],
        calibration=calibration(),
        evaluate=accuracy,
        max_accuracy_drop=0.01,
    )
    print(bundle.report)

    model = fleet.push(bundle, "digits")
    print(fleet.plan(model, to="line-3"))
    deployment = fleet.deploy(model, to="line-3")
    deployment.wait(min_attested=0.95, timeout_s=300)
    print(deployment)

    images, labels = held_out()
    for device in fleet.devices(group="line-3"):
        # A request travels through the API server to the node's own pod.
        answers = fleet.device(device.name).infer("digits", images[:50])
        print(f"accuracy on {device.name}:", (answers["label"] == labels[:50]).mean().round(3))

    print(fleet.why(device.name))
    fleet.rollback("line-3").wait(timeout_s=300)
    for entry in fleet.history("line-3"):
        print(entry.number, entry.action, *entry.models)
