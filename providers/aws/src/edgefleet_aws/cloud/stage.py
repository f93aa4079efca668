"""What stands in the mock cloud before anybody calls, and what is swept away after."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config

from edgefleet_aws.cloud.compilation import CompilationJobs
from edgefleet_aws.cloud.moto_state import Buckets, Logs
from edgefleet_aws.cloud.objects import Objects
from edgefleet_aws.cloud.packages import ModelPackages
from edgefleet_aws.cloud.pipelines import Pipelines
from edgefleet_aws.cloud.server import CloudServer, JsonMount
from edgefleet_aws.cloud.training import TrainingJobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.testing.cloud.keeping import Part
    from edgefleet.testing.cloud.rules import Rules
    from edgefleet_aws.cloud.server import Mount


class Stage:
    """The mock cloud as a whole: its server, what is mounted there, its first bucket.

    Args:
        rules: faults to inject.
        folder: for what training jobs work with, and what is kept.
        region: of the mock's own clients.

    Attributes:
        parts: what goes on where it was.
    """

    def __init__(self, rules: Rules, folder: Path, *, region: str) -> None:
        self._server = CloudServer(rules)
        self._region = region
        self._jobs = TrainingJobs(folder / "training", self.client)
        self._buckets = Buckets(folder / "objects")
        self._logs = Logs(region)
        self._pipelines = Pipelines(self._jobs)
        self._compilations = CompilationJobs(self.client)
        self._session = _session()
        self._making = threading.Lock()  # a session is not for several threads
        self._made: dict[str, Any] = {}
        packages = ModelPackages()
        self._server.mounts["sagemaker"] = JsonMount(
            {
                **packages.operations,
                **self._jobs.operations,
                **self._pipelines.operations,
                **self._compilations.operations,
            }
        )
        self._server.mounts["logs"] = JsonMount({})
        self._server.mounts["s3"] = Objects()
        self.parts: dict[str, Part] = {
            "buckets": self._buckets,
            "packages": packages,
            "jobs": self._jobs,
            "logs": self._logs,
        }

    @property
    def mounts(self) -> dict[str, Mount]:
        """Service by boto3's name -> what answers for it before moto does."""
        return self._server.mounts

    @property
    def running(self) -> bool:
        """Whether the cloud can be called."""
        return self._server.running

    @property
    def url(self) -> str:
        """Where it can be called."""
        return self._server.url

    def seen(self) -> Iterator[str]:
        """A line a call, oldest first."""
        return self._server.seen()

    def interrupt_training(self, name: str) -> None:
        """Take the spare capacity away from a training job, by its name."""
        self._jobs.interrupt(name)

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3 has no types
        """A client of the mock itself: the same for all who ask, and closed with the cloud."""
        with self._making:
            made = self._made.get(service)
            if made is None:
                made = self._made[service] = self._session.client(
                    service,
                    region_name=self._region,
                    endpoint_url=self._server.url,
                    config=Config(proxies={"http": None}),
                )
            return made

    def open(self, bucket: str, port: int = 0) -> None:
        """Listen, on that port where it is free, and make the bucket."""
        self._server.start(port)
        s3 = self.client("s3")
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(_mirrored(bucket)))

    def end_jobs(self) -> None:
        """End what trains, evaluates or compiles, and return when nothing does."""
        self._pipelines.close()
        self._compilations.close()
        self._jobs.close()

    def close(self) -> None:
        """End what runs, stop listening, remove buckets and logs; may be called twice."""
        self.end_jobs()
        with self._making:
            for made in self._made.values():
                made.close()
            self._made.clear()
        self._server.stop()
        self._buckets.clear()
        self._logs.clear()


def _session() -> Any:  # noqa: ANN401 - boto3 has no types
    """One session for all clients: each would read megabytes of models and endpoints anew."""
    # Nothing of the operator's own configuration: a profile that is named there may not exist.
    core = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    core.set_credentials("mock", "mock")
    return boto3.session.Session(botocore_session=core)


def _mirrored(bucket: str) -> dict[str, Any]:
    """A policy that stands for a mirror in front of the bucket: anyone may read blobs, no more."""
    reading = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*/blobs/*",
    }
    return {"Version": "2012-10-17", "Statement": [reading]}
