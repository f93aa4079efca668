"""One script over several clouds: who trains, who keeps and who delivers are different vendors.

A release is the same everywhere, so what devices say of it must be, too, whichever channel brought
it. Models lie in Google Cloud Storage, which devices of every cloud read with what it lends them.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edgefleet.protocol.report import AccessReport, Health, Report
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.fleet import FleetConformance
from edgefleet.testing.mock import mock
from edgefleet.testing.waiting import eventually
from edgefleet_aws.clients import Clients as AwsClients
from edgefleet_aws.settings import AwsSettings
from edgefleet_gcp.clients import Clients as GcpClients
from edgefleet_gcp.mock import DEVICES, GcpMock
from edgefleet_gcp.settings import GcpSettings
from edgefleet_kubernetes.mock import KubernetesMock

if TYPE_CHECKING:
    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.testing.mock import MockCloud

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_S = 120.0  # for anything that takes seconds where nothing is wrong
GROUP = "line-3"
REQUESTS = 3  # to each device


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Held-out images of the examples' data."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import digits_data

    return digits_data.held_out()[0][:20]


def test_kubernetes_trains_and_delivers_what_google_keeps(images: Any) -> None:
    with mock("gcp", "kubernetes") as session:
        _, cluster = session.clouds
        assert isinstance(cluster, KubernetesMock)
        session.add_device("cam-1", group=GROUP, labels={"target": "x86-cpu"})
        with session.connect() as fleet:
            roles = {role: fleet.profile.provider_of(role) for role in ("registry", "trainer")}
            assert roles == {"registry": "gcp", "trainer": "kubernetes"}
            model = trained(fleet)
            fleet.deploy(model, to=GROUP).wait(timeout_s=TIMEOUT_S, progress=False)
            assert all(source.startswith("gs://") for source in sources(fleet, GROUP))
            for _ in range(REQUESTS):
                fleet.device("cam-1").infer("digits", images)
            # Nodes write what they recorded where the profile reads it.
            eventually(lambda: len(predictions(fleet)) == REQUESTS, "what the device recorded")
            assert len(cluster.stage.store.list("Job")) == 1


def test_one_release_is_the_same_on_devices_of_three_clouds(images: Any) -> None:
    names = ("aws", "kubernetes", "azure")
    with mock("gcp", *names) as session:
        google, *others = session.clouds
        for cloud in others:
            cloud.add_device(f"cam-{cloud.name}", group=GROUP, labels={"target": "x86-cpu"})
        with session.connect() as fleet:
            assert fleet.profile.provider_of("registry") == "gcp"
            assert fleet.profile.provider_of("trainer") == "aws"
            model = trained(fleet)
            digests = set()
            for name in names:
                deployment = fleet.deploy(model, to=f"{name}/{GROUP}")
                status = deployment.wait(timeout_s=TIMEOUT_S, progress=False)
                assert (status.attested, status.models) == (1, ("digits:1",))
                digests.add(deployment.release)
            assert len(digests) == 1
            answers = [fleet.device(f"cam-{name}").infer("digits", images) for name in names]
            assert len({answer["label"].tobytes() for answer in answers}) == 1
            eventually(
                lambda: {report.models[0].inferences for report in reports(fleet)} == {1}, "one"
            )
            said = [content(report) for report in reports(fleet)]
            assert len(said) == len(names)
            assert said[0]["running"] in digests
            assert said[1:] == said[:1] * 2
        asked = asked_by_devices(google)
        assert "storage.objects.get" in asked
        assert asked <= {"storage.objects.get", "storage.objects.create"}  # nodes' telemetry
        for cloud in others:
            assert not [line for line in cloud.seen() if "blobs/sha256" in line]


def test_the_nine_lines_run_on_what_google_keeps(tmp_path: Path) -> None:
    with mock("gcp", "kubernetes") as session, session.connect() as fleet:
        assert fleet.profile.provider_of("registry") == fleet.profile.provider_of("state") == "gcp"
        FleetConformance().test_the_nine_lines(fleet, session.add_device, tmp_path)


def test_plain_machines_behind_a_gateway_run_what_aws_keeps(images: Any) -> None:
    with mock("gateway", "aws") as session:
        session.add_device("cam-1", group=GROUP, labels={"target": "x86-cpu"})
        with session.connect() as fleet:
            roles = {role: fleet.profile.provider_of(role) for role in ("registry", "state")}
            assert roles == {"registry": "aws", "state": "aws"}
            fleet.deploy(trained(fleet), to=GROUP).wait(timeout_s=TIMEOUT_S, progress=False)
            for _ in range(REQUESTS):
                fleet.device("cam-1").infer("digits", images)
            # The machine has no account there: its gateway writes what it recorded.
            eventually(lambda: len(predictions(fleet)) == REQUESTS, "what the device recorded")


def test_google_keeps_a_model_where_aws_does(tmp_path: Path) -> None:
    bundle, kept = samples.bundle(tmp_path).root, {}
    for name in ("aws", "gcp"):
        with mock(name) as session, session.connect() as fleet:
            fleet.push(bundle, "digits")
            kept[name] = objects(session.clouds[0])
    assert kept["gcp"] == kept["aws"]
    assert {name.split("/")[1] for name in kept["gcp"]} == {"blobs", "state"}


# What the tests are made of


def objects(cloud: MockCloud) -> set[str]:
    """Names of what a cloud keeps for a fleet."""
    if isinstance(cloud, GcpMock):
        with closing(GcpClients(GcpSettings(**cloud.settings))) as google:
            names = [blob.name for blob in google.bucket.list_blobs()]
    else:
        with closing(AwsClients(AwsSettings(**cloud.settings))) as aws:
            pages = aws.s3.get_paginator("list_objects_v2")
            found = pages.paginate(Bucket=cloud.settings["bucket"], Prefix="")
            names = [one["Key"] for page in found for one in page["Contents"]]
    return set(names)


def trained(fleet: Fleet) -> ModelVersion:
    """A model of the profile's trainer, in the profile's registry."""
    run = fleet.train(EXAMPLES / "train_digits.py", params={"epochs": 5})
    run.wait(timeout_s=TIMEOUT_S, progress=False)
    return fleet.push(run.model, "digits")


def sources(fleet: Fleet, group: str) -> tuple[str, ...]:
    """Where a group's pointer has devices read."""
    (deployer,) = fleet.deployers.values()
    pointer = deployer.pointer(group)
    assert pointer is not None
    assert pointer.sources
    return pointer.sources


def asked_by_devices(cloud: MockCloud) -> set[str]:
    """Permissions that devices' requests to Google needed."""
    assert isinstance(cloud, GcpMock)
    account = cloud.stage.identities.get(DEVICES)
    assert account is not None
    return account.asked


def predictions(fleet: Fleet) -> list[Any]:
    return list(fleet.events(kind="prediction"))


def reports(fleet: Fleet) -> list[Report]:
    """What each device said last."""
    found = [device.report for device in fleet.devices()]
    return [report for report in found if report is not None]


def content(report: Report) -> dict[str, Any]:
    """What a report says of the release, without what is one device's and one moment's.

    That is times, processes and addresses, the number of the pointer, and whether the channel has
    access of its own to renew.
    """
    plain = msgspec.structs.replace(
        report,
        sequence=0,
        time=report.health.started,
        number=0,
        endpoint=None,
        access=AccessReport(),
        health=Health(pid=1, started=report.health.started),
        models=tuple(
            msgspec.structs.replace(model, latency_p50_us=None) for model in report.models
        ),
    )
    found: dict[str, Any] = msgspec.to_builtins(plain)
    for moment in ("time", "health"):
        del found[moment]
    return found
