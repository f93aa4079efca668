"""`edgefleet mock gcp`: what it gives to a command, by the SDK and by Google's own library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet.errors import UnsupportedError
from edgefleet_gcp.mock import GcpMock

TIMEOUT_S = 240.0
LOOK = """\
from google.cloud import storage
import google.auth

credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
client = storage.Client(project=project, credentials=credentials)
bucket = client.bucket("edgefleet-mock-fleet")
bucket.blob("mine").upload_from_string(b"hello", if_generation_match=0)
print(*(blob.name for blob in client.list_blobs(bucket)))
"""


def test_a_command_reaches_the_cloud_by_googles_own_library(tmp_path: Path) -> None:
    mock = [sys.executable, "-m", "edgefleet.cli", "mock", "gcp", "--state", str(tmp_path / "s")]
    for seen in ("mine", ""):
        done = subprocess.run(
            [*mock, "--log", "--", sys.executable, "-W", "ignore", "-c", LOOK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if seen:
            assert done.stdout.split() == ["mine"], done.stderr
            assert "storage.InsertObject /upload/storage/v1/b/edgefleet-mock-fleet/o 200" in (
                done.stderr
            )
        else:  # it is there already, and generation 0 was asked for
            assert "PreconditionFailed" in done.stderr


def test_there_are_no_devices_and_where_to_find_some_is_told(cloud: GcpMock) -> None:
    with pytest.raises(UnsupportedError, match="edgefleet mock kubernetes,gcp"):
        cloud.add_device("cam-1", group="line-3")
