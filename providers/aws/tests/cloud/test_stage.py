"""The mock cloud's own clients: each costs as much as many calls."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgefleet.testing.cloud.rules import Rules
from edgefleet_aws.cloud.calls import throttled
from edgefleet_aws.cloud.fleet import DeviceFleet
from edgefleet_aws.cloud.stage import Stage
from edgefleet_aws.mock import REGION
from edgefleet_aws.settings import AwsSettings


def test_all_who_work_for_the_cloud_have_one_client_a_service(tmp_path: Path) -> None:
    stage = Stage(Rules(throttled), tmp_path, region=REGION)
    with closing(stage):
        stage.open("models")
        s3 = stage.client("s3")
        settings = AwsSettings(region=REGION, bucket="models", prefix="p")
        fleet = DeviceFleet(stage, REGION, tmp_path / "devices", borrowed=dict)
        for _ in range(2):
            with closing(fleet._clients(settings)) as clients:
                assert clients.s3 is s3
                clients.s3.put_object(Bucket="models", Key="blob", Body=b"as before")
