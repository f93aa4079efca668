"""Models and telemetry in Google Cloud Storage, training and devices on Kubernetes.

The lines are those of every other provider; the profile says who does what. Runs where nodes are
enrolled into the group, or on the mock clouds:

    edgefleet mock gcp,kubernetes --devices 2 --group line-3 -- python examples/gcp_artifacts.py
"""

import time
from pathlib import Path

from digits_data import held_out

import edgefleet as ef

HERE = Path(__file__).parent
GROUP = "line-3"

with ef.connect() as fleet:
    for role in ("registry", "state", "telemetry", "trainer"):
        print(f"{role}: {fleet.profile.provider_of(role)}")
    run = fleet.train(HERE / "train_digits.py", params={"epochs": 20}).wait()
    model = fleet.push(run.model, "digits")
    fleet.deploy(model, to=GROUP).wait(min_attested=1.0, timeout_s=300)

    images, labels = held_out()
    devices = [device.name for device in fleet.devices(group=GROUP)]
    for device in devices:
        answers = fleet.device(device).infer("digits", images[:50])
        print(f"accuracy on {device}:", (answers["label"] == labels[:50]).mean().round(3))

    # Each node writes below its own folder of the bucket, with its own workload identity.
    deadline = time.monotonic() + 300
    while len(seen := fleet.events(kind="prediction").to_pandas()) < len(devices):
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(seen)} predictions arrived")
        time.sleep(0.5)
    print(seen[["device", "model", "model_version", "latency_us"]])
