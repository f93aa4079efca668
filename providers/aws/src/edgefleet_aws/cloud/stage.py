"""What stands in the mock cloud before anybody calls, and what is swept away after."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3

from edgefleet_aws.cloud.objects import Objects
from edgefleet_aws.cloud.packages import ModelPackages
from edgefleet_aws.cloud.server import JsonMount
from edgefleet_aws.cloud.training import TrainingJobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_aws.cloud.server import CloudServer


class Stage:
    """The cloud's own services and its first bucket.

    Args:
        server: where they are mounted.
        folder: for what training jobs work with.
        environment: what a client at an address is told.
    """

    def __init__(
        self,
        server: CloudServer,
        folder: Path,
        environment: Callable[[str], dict[str, str]],
    ) -> None:
        self._server = server
        self._environment = environment
        self._jobs = TrainingJobs(folder, self.client)
        self._bucket: str | None = None
        packages = ModelPackages()
        server.mounts["sagemaker"] = JsonMount({**packages.operations, **self._jobs.operations})
        server.mounts["logs"] = JsonMount({})
        server.mounts["s3"] = Objects()

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3 has no types
        """A client of the mock itself, whatever the environment says."""
        told = self._environment(self._server.url)
        session = boto3.session.Session(
            aws_access_key_id=told["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=told["AWS_SECRET_ACCESS_KEY"],
            region_name=told["AWS_REGION"],
        )
        return session.client(service, endpoint_url=self._server.url)

    def open(self, bucket: str) -> None:
        """Make the bucket; no error when it is there."""
        if self._bucket is None:
            s3 = self.client("s3")
            s3.create_bucket(Bucket=bucket)
            s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(_mirrored(bucket)))
            self._bucket = bucket

    def close(self) -> None:
        """End what runs, and empty and remove the bucket; may be called twice."""
        self._jobs.close()
        if self._bucket is None:
            return
        s3, bucket, self._bucket = self.client("s3"), self._bucket, None
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            found = [{"Key": item["Key"]} for item in page.get("Contents", ())]
            if found:
                s3.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True})
        s3.delete_bucket(Bucket=bucket)


def _mirrored(bucket: str) -> dict[str, Any]:
    """A policy that stands for a mirror in front of the bucket: anyone may read blobs, no more."""
    reading = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*/blobs/*",
    }
    return {"Version": "2012-10-17", "Statement": [reading]}
