"""Replace a model by a better one on Kubernetes, and read what the devices recorded.

Runs where devices are: nodes that were enrolled into the group, or those of the mock cloud:

    edgefleet mock kubernetes --devices 2 --group line-3 -- python examples/kubernetes_retrain.py
"""

import time
from pathlib import Path

from digits_data import held_out

import edgefleet as ef

HERE = Path(__file__).parent
GROUP = "line-3"
REQUESTS = 4  # to each device with each version

with ef.connect() as fleet:
    images, labels = held_out()
    devices = [device.name for device in fleet.devices(group=GROUP)]
    for epochs in (2, 30):
        run = fleet.train(HERE / "train_digits.py", params={"epochs": epochs}).wait()
        model = fleet.push(run.model, "digits", labels={"run": run.id})
        fleet.registry.record_metrics(model.reference, {"accuracy": run.metrics["accuracy"]})
        fleet.registry.approve(model.reference, by="the line's engineer")
        fleet.deploy(model, to=GROUP).wait(timeout_s=300)
        for device in devices:
            right = 0
            for some in (slice(20 * n, 20 * n + 20) for n in range(REQUESTS)):
                answers = fleet.device(device).infer("digits", images[some])
                right += int((answers["label"] == labels[some]).sum())
            print(f"{model.reference} on {device}: {right} of {20 * REQUESTS} right")

    # Nodes write what they recorded into the registry: within seconds here, a minute there.
    deadline = time.monotonic() + 300
    while len(seen := fleet.events(kind="prediction").to_pandas()) < 2 * len(devices) * REQUESTS:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(seen)} predictions arrived")
        time.sleep(0.5)
    by_version = seen.groupby(["model_version", "device"])
    print(by_version.agg(requests=("latency_us", "size"), median_us=("latency_us", "median")))

    fleet.rollback(GROUP).wait(timeout_s=300)
    print("after the rollback:", *fleet.group_status(GROUP).models)
