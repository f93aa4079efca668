"""One training job: downloads, runs its container's entry point as a child process, uploads.

What stands for the container's ``/opt/ml`` is a folder; the image isn't pulled, and the command's
``python3`` is this Python. Everything else, channels, the file of hyperparameters, ``failure``,
what is kept, SIGTERM and then SIGKILL, is as in
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import tarfile
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgefleet.testing.cloud.child import Why, kept_environment, run_child
from edgefleet_aws.cloud.job_log import JobLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_REASON = 1024


class Job:
    """A job and its thread.

    Args:
        asked: members of the request, and the job's ARN.
        ml: folder that stands for ``/opt/ml``; removed when the job has ended.
        client: makes boto3 clients of the mock cloud by service.
    """

    def __init__(self, asked: dict[str, Any], ml: Path, client: Callable[[str], Any]) -> None:
        self._asked, self._ml, self._client = asked, ml, client
        self._name = asked["TrainingJobName"]
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._interrupted = threading.Event()
        self._begun = time.monotonic()
        self._facts: dict[str, Any] = {"CreationTime": _now(), "TrainingJobStatus": "InProgress"}
        self._steps: list[dict[str, Any]] = []
        asked_metrics = asked["AlgorithmSpecification"].get("MetricDefinitions", ())
        self._patterns = {one["Name"]: re.compile(one["Regex"]) for one in asked_metrics}
        self._metrics: dict[str, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._run, name=f"job-{self._name}", daemon=True)
        self._step("Starting", "Preparing the instances for training")

    def start(self) -> None:
        """Begin; `told` tells how far it is."""
        self._thread.start()

    def join(self) -> None:
        """Return when it has ended."""
        self._thread.join()

    def told(self) -> dict[str, Any]:
        """The answer of DescribeTrainingJob."""
        place = f"{self._asked['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self._name}"
        with self._lock:
            return {
                **self._asked,
                **self._facts,
                "SecondaryStatus": self._steps[-1]["Status"],
                "SecondaryStatusTransitions": [dict(step) for step in self._steps],
                **({"FinalMetricDataList": list(self._metrics.values())} if self._metrics else {}),
                "ModelArtifacts": {"S3ModelArtifacts": f"{place}/output/model.tar.gz"},
            }

    def stop(self) -> None:
        """Ask it to end; no error when it has."""
        with self._lock:
            if self._facts["TrainingJobStatus"] != "InProgress":
                return
            self._facts["TrainingJobStatus"] = "Stopping"
        self._step("Stopping", "Stopping the training job")
        self._ending.set()

    def interrupt(self) -> None:
        """Take the spare capacity away while it trains: it starts anew.

        Raises:
            ValueError: it isn't spot training, or doesn't train just now.
        """
        with self._lock:
            training = self._steps[-1]["Status"] == "Training"
        if not self._asked.get("EnableManagedSpotTraining") or not training:
            raise ValueError(f"{self._name} is no spot training that can be interrupted now")
        self._interrupted.set()
        self._ending.set()

    def _step(self, status: str, message: str) -> None:
        with self._lock:
            if self._steps:
                self._steps[-1]["EndTime"] = _now()
            self._steps.append({"Status": status, "StartTime": _now(), "StatusMessage": message})
            self._facts["LastModifiedTime"] = _now()

    def _run(self) -> None:
        try:
            ended = self._work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the job's status tells
            ended = ("Failed", "Failed", f"InternalServerError: {error}")
        finally:
            shutil.rmtree(self._ml, ignore_errors=True)
        status, secondary, reason = ended
        self._step(secondary, reason or "Training job " + status.lower())
        with self._lock:
            self._facts |= {"TrainingJobStatus": status, "TrainingEndTime": _now()}
            if reason is not None:
                self._facts["FailureReason"] = reason[:MAX_REASON]

    def _work(self) -> tuple[str, str, str | None]:
        while True:
            self._step("Downloading", "Downloading input data")
            self._lay_out()
            if self._ending.is_set():
                return "Stopped", "Stopped", None
            self._step("Training", "Training image download completed. Training in progress.")
            with self._lock:
                self._facts["TrainingStartTime"] = _now()
            why, code = self._train()
            self._keep_checkpoints()
            if why != "Interrupted":
                break
            self._step("Interrupted", "Spot capacity was reclaimed")
            self._interrupted.clear()
            self._ending.clear()
            if self.told()["TrainingJobStatus"] == "Stopping":
                return "Stopped", "Stopped", None
            self._step("Starting", "Preparing the instances for training")
        if why is None and code != 0:
            return "Failed", "Failed", f"AlgorithmError: {self._failure()}, exit code: {code}"
        if why is None:
            self._step("Uploading", "Uploading generated training model")
        self._upload()
        if why is not None:
            return "Stopped", why, None
        return "Completed", "Completed", None

    @property
    def _checkpoints(self) -> str | None:
        """Where checkpoints lie in S3; None for a job that keeps none."""
        address = self._asked.get("CheckpointConfig", {}).get("S3Uri")
        return None if address is None else str(address).rstrip("/") + "/"

    def _keep_checkpoints(self) -> None:
        address, folder = self._checkpoints, self._ml / "checkpoints"
        if address is None:
            return
        parts, s3 = urlsplit(address), self._client("s3")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = parts.path[1:] + path.relative_to(folder).as_posix()
                s3.upload_file(str(path), parts.netloc, key)

    def _lay_out(self) -> None:
        shutil.rmtree(self._ml, ignore_errors=True)
        for below in ("input/config", "input/data", "model", "output/data"):
            (self._ml / below).mkdir(parents=True)
        config = self._ml / "input" / "config"
        texts = self._asked.get("HyperParameters", {})
        (config / "hyperparameters.json").write_text(json.dumps(texts), encoding="utf-8")
        resources = {"current_host": "algo-1", "hosts": ["algo-1"]}
        (config / "resourceconfig.json").write_text(json.dumps(resources), encoding="utf-8")
        s3 = self._client("s3")
        for channel in self._asked.get("InputDataConfig", ()):
            address = channel["DataSource"]["S3DataSource"]["S3Uri"]
            if not self._download(
                s3, address, self._ml / "input" / "data" / channel["ChannelName"]
            ):
                raise ValueError(
                    f"ClientError: Data download failed: no S3 objects found under {address}"
                )
        if self._checkpoints is not None:
            self._download(s3, self._checkpoints, self._ml / "checkpoints")

    @staticmethod
    def _download(s3: Any, address: str, to: Path) -> int:  # noqa: ANN401
        """Fetch what lies under an address; gives the number of objects."""
        parts = urlsplit(address)
        bucket, prefix = parts.netloc, parts.path[1:]
        to.mkdir()
        count = 0
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                # A prefix that is one object's whole key gives that object under its own name.
                name = item["Key"].removeprefix(prefix).lstrip("/") or prefix.rpartition("/")[2]
                path = to / name
                path.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(bucket, item["Key"], str(path))
                count += 1
        return count

    def _train(self) -> tuple[str | None, int]:
        """Why it was ended, None when it ended by itself; and its exit status."""
        stopping = self._asked.get("StoppingCondition", {})
        limit = stopping.get("MaxRuntimeInSeconds", 86_400)
        waited = stopping.get("MaxWaitTimeInSeconds", math.inf)
        left = max(waited - (time.monotonic() - self._begun), 0.0)
        stream = f"{self._name}/algo-1-{int(time.time())}"
        log = JobLog(self._client("logs"), stream, self._find_metrics)
        ended = run_child(
            self._command(),
            folder=self._ml,
            environment=self._environment(),
            pump=log.pump,
            ending=self._ending,
            limit_s=min(limit, left),
        )
        why = None
        if ended.why is Why.TIME:
            why = "MaxRuntimeExceeded" if limit <= left else "MaxWaitTimeExceeded"
        elif ended.why is Why.ASKED:
            why = "Interrupted" if self._interrupted.is_set() else "Stopped"
        return why, ended.status

    def _find_metrics(self, line: str) -> None:
        """Keep the newest value of each metric that the job defines."""
        for name, pattern in self._patterns.items():
            found = pattern.search(line)
            if found is not None:
                with self._lock:
                    told = {"MetricName": name, "Value": float(found[1]), "Timestamp": _now()}
                    self._metrics[name] = told

    def _command(self) -> list[str]:
        asked = self._asked["AlgorithmSpecification"]
        words = [*asked.get("ContainerEntrypoint", ()), *asked.get("ContainerArguments", ())]
        inside = [word.replace("/opt/ml", str(self._ml)) for word in words]
        return [sys.executable if word == "python3" else word for word in inside]

    def _environment(self) -> dict[str, str]:
        """A container sees nothing of this machine's environment but what a Python needs.

        What stands for its role's credentials are the mock's own, which may do everything.
        """
        client = self._client("s3").meta
        return {
            **kept_environment(),
            "AWS_ENDPOINT_URL": client.endpoint_url,
            "AWS_REGION": client.region_name,
            "AWS_ACCESS_KEY_ID": "mock",
            "AWS_SECRET_ACCESS_KEY": "mock",
            "TRAINING_JOB_NAME": self._name,
            "TRAINING_JOB_ARN": self._asked["TrainingJobArn"],
            **self._asked.get("Environment", {}),
        }

    def _failure(self) -> str:
        try:
            return (self._ml / "output" / "failure").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _upload(self) -> None:
        model = self._ml / "model"
        if not any(model.iterdir()):
            return
        packed = self._ml / "model.tar.gz"
        with tarfile.open(packed, "w:gz", compresslevel=1) as archive:
            for path in sorted(model.iterdir()):
                archive.add(path, arcname=path.name)
        parts = urlsplit(self.told()["ModelArtifacts"]["S3ModelArtifacts"])
        self._client("s3").upload_file(str(packed), parts.netloc, parts.path[1:])


def _now() -> float:
    return datetime.now(UTC).timestamp()
