"""A mock that is started again on its folder goes on where it was: cloud, devices, their disks."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import boto3
import pytest

from edgefleet.errors import ConfigurationError, UnavailableError
from edgefleet.plugins.provider import Role
from edgefleet.testing.kit import models
from edgefleet.testing.mock import MockSession, mock
from edgefleet.testing.waiting import eventually
from edgefleet_aws.mock import AwsMock

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 90.0


def cloud_of(session: MockSession) -> AwsMock:
    cloud = session.cloud(Role.DEPLOYER)
    assert isinstance(cloud, AwsMock)
    return cloud


def test_versions_runs_and_their_logs_come_back(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print('it trained')")
    with mock("aws", state=tmp_path / "kept") as session, session.connect() as fleet:
        run = fleet.train(tmp_path / "code" / "train.py").wait(progress=False)
        fleet.push(models.write_model(tmp_path / "m.onnx", 1), "digits", labels={"site": "north"})
        fleet.registry.approve("digits:1", by="grace")
    with mock("aws", state=tmp_path / "kept") as session, session.connect() as fleet:
        version = fleet.registry.get("digits:1")
        assert (version.labels, version.approval.by) == ({"site": "north"}, "grace")
        fleet.registry.pull("digits:1", tmp_path / "pulled")
        again = fleet.trainer.get(run.id)
        assert again.status == run.status
        assert "it trained" in "\n".join(again.logs())


def test_a_device_comes_back_with_its_disk_and_serves_what_it_had(tmp_path: Path) -> None:
    point = models.points(3)[0]
    with (
        mock("aws", devices=1, group="line-3", state=tmp_path / "kept") as session,
        session.connect() as fleet,
    ):
        model = fleet.push(models.write_model(tmp_path / "m.onnx", 1), "digits")
        fleet.deploy(model, to="line-3").wait(timeout_s=TIMEOUT_S, progress=False)
        before = fleet.device("dev-01").infer("digits", point)
    with mock("aws", devices=1, group="line-3", state=tmp_path / "kept") as session:
        with session.connect() as fleet:
            after = eventually(
                lambda: fleet.device("dev-01").infer("digits", point), ignoring=UnavailableError
            )
            assert (after["scores"] == before["scores"]).all()
            assert [entry.number for entry in fleet.history("line-3")] == [1]
        seen = "\n".join(cloud_of(session).seen())
    assert "CreateDeployment" not in seen
    assert "/blobs/" not in seen, "the device fetched what it had"


def test_devices_keep_their_nuclei_and_power(tmp_path: Path) -> None:
    with mock("aws", devices=2, state=tmp_path / "kept") as session:
        session.kill_device("dev-01")
    with mock("aws", devices=3, state=tmp_path / "kept") as session:
        site = cloud_of(session).fleet.greengrass.site
        nuclei = [site.nucleus(f"dev-0{number}") for number in (1, 2, 3)]
        assert [one.kind.value for one in nuclei] == ["classic", "lite", "classic"]
        assert [one.on for one in nuclei] == [False, True, True]
        session.start_device("dev-01")
        assert nuclei[0].on


def test_address_and_bucket_stay(tmp_path: Path) -> None:
    with mock("aws", state=tmp_path) as session:
        before = session.clouds[0].settings, session.environment
    with mock("aws", state=tmp_path) as session:
        assert (session.clouds[0].settings, session.environment) == before


def test_another_address_is_taken_where_the_old_one_is_not_free(tmp_path: Path) -> None:
    with mock("aws", state=tmp_path) as session:
        before = session.environment["AWS_ENDPOINT_URL"]
    with (
        socket.create_server(("127.0.0.1", int(before.rpartition(":")[2]))),
        mock("aws", state=tmp_path) as session,
    ):
        assert session.environment["AWS_ENDPOINT_URL"] != before
        with session.connect() as fleet:
            assert fleet.registry.list() == ()


def test_objects_keep_what_a_reader_is_told_of_them(tmp_path: Path) -> None:
    told = ("ETag", "LastModified", "ContentType", "Metadata", "ContentLength")
    replies = []
    for first in (True, False):
        with mock("aws", state=tmp_path) as session:
            s3 = boto3.session.Session().client(
                "s3",
                endpoint_url=session.environment["AWS_ENDPOINT_URL"],
                aws_access_key_id="mock",
                aws_secret_access_key="mock",
                region_name="us-east-1",
            )
            place = {"Bucket": cloud_of(session).bucket, "Key": "a/b c"}
            if first:
                s3.put_object(**place, Body=b"x", ContentType="text/plain", Metadata={"who": "ada"})
            reply = s3.head_object(**place)
            replies.append({key: reply[key] for key in told})
            s3.close()
    assert replies[0] == replies[1]
    assert replies[1]["Metadata"] == {"who": "ada"}


def test_bytes_of_objects_that_are_gone_are_gone(tmp_path: Path) -> None:
    objects = tmp_path / "aws" / "objects"
    with mock("aws", state=tmp_path) as session, session.connect() as fleet:
        fleet.state.write("doc", b"{}", expect=None)
    assert len(list(objects.iterdir())) == 1
    with mock("aws", state=tmp_path) as session, session.connect() as fleet:
        stored = fleet.state.read("doc")
        assert stored is not None
        fleet.state.write("doc", b"[]", expect=stored.tag)
    with mock("aws", state=tmp_path):
        (kept,) = objects.iterdir()
        assert kept.read_bytes() == b"[]"


@pytest.mark.parametrize(
    "content", ["{", "[]", json.dumps({"version": 99, "parts": {}})], ids=["cut", "list", "newer"]
)
def test_a_file_that_it_did_not_write_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "aws").mkdir()
    (tmp_path / "aws" / "cloud.json").write_text(content)
    with pytest.raises(ConfigurationError, match="empty folder"), mock("aws", state=tmp_path):
        pass
    assert (tmp_path / "aws" / "cloud.json").read_text() == content
