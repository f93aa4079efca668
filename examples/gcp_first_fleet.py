"""Models on Google Cloud, devices elsewhere: Cloud Storage keeps, another provider delivers.

Devices read the release from ``gs://`` themselves, with an identity of their own. With mock clouds:

    edgefleet mock gcp,local --devices 2 --group line-3 -- python examples/gcp_first_fleet.py
"""

from pathlib import Path

from digits_data import held_out

import edgefleet as ef

HERE = Path(__file__).parent

with ef.connect() as fleet:
    run = fleet.train(HERE / "train_digits.py", params={"epochs": 20}).wait()
    model = fleet.push(run.model, "digits")
    print(model, "lies at", *fleet.registry.blobs.sources)

    deployment = fleet.deploy(model, to="line-3")
    deployment.wait(min_attested=1.0, timeout_s=300)
    print(deployment)

    images, labels = held_out()
    for device in fleet.devices(group="line-3"):
        answers = fleet.device(device.name).infer("digits", images[:50])
        print(f"accuracy on {device.name}:", (answers["label"] == labels[:50]).mean().round(3))
