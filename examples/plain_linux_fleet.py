"""A model on plain Linux devices, which ask a gateway for it: no cloud's agent, no Kubernetes.

The lines are those of ``quickstart.py``; the profile and the devices are what differs. Devices are
there before the script is: machines that were enrolled, or those of the mock:

    edgefleet mock gateway,local --devices 2 --group line-3 -- python plain_linux_fleet.py
"""

from datetime import timedelta
from pathlib import Path

from digits_data import held_out

import edgefleet as ef

HERE = Path(__file__).parent

with ef.connect() as fleet:
    run = fleet.train(HERE / "train_digits.py", params={"epochs": 20}).wait()
    model = fleet.push(run.model, "digits")
    print(fleet.plan(model, to="line-3"))
    deployment = fleet.deploy(model, to="line-3")
    deployment.wait(min_attested=0.95, timeout_s=300)
    print(deployment)

    images, labels = held_out()
    for device in fleet.devices(group="line-3"):
        # The device is asked when it asks its gateway next; one that waits there, at once.
        answers = fleet.device(device.name).infer("digits", images[:50])
        print(f"accuracy on {device.name}:", (answers["label"] == labels[:50]).mean().round(3))
    print(fleet.why(device.name))

    # One more device: who pastes the command on a machine makes it the device.
    invited = fleet.invite("cam-new", group="line-3", lasts=timedelta(minutes=10))
    print(f"{invited.device} may join until {invited.ends:%H:%M} UTC, by a command of", end=" ")
    print(f"{len(invited.command)} characters that holds a token")
    print(fleet.plan(model, to="line-3"))

    fleet.retire("cam-new")
    fleet.rollback("line-3").wait(timeout_s=300)
    for entry in fleet.history("line-3"):
        print(entry.number, entry.action, *entry.models)
