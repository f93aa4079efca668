"""What a training job is asked for with, whether it is started here or by a pipeline.

Values only, but for `send_code`, which puts a job's code where its channel ``code`` finds it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from edgefleet.errors import LimitExceededError
from edgefleet.interfaces import job_parts, training_entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.interfaces.training import Param, Resources
    from edgefleet.interfaces.training_data import Channel
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

ML = "/opt/ml"  # how a container is laid out: developer guide, "Your training algorithms"
MAX_PARAMS = 100  # hyperparameters of a job, and their sizes: botocore's model of SageMaker
MAX_KEY = 256
MAX_VALUE = 2500


def image_and_role(settings: AwsSettings) -> tuple[str, str]:
    """The image and the role that jobs run with.

    Raises:
        ProfileError: the profile names none.
    """
    image = settings.needed("training_image", "training")
    return image, settings.needed("training_role", "training")


def send_code(
    clients: Clients, settings: AwsSettings, place: str, archive: bytes, order: Mapping[str, Any]
) -> str:
    """Put a job's code below a place of the fleet; gives the address of its channel ``code``."""
    code = f"{settings.prefix}/{place}/code/"
    for name, content in job_parts.files_of(archive, order).items():
        clients.s3.put_object(Bucket=settings.bucket, Key=code + name, Body=content)
    return f"s3://{settings.bucket}/{code}"


def training_request(
    settings: AwsSettings,
    resources: Resources,
    *,
    instance: str,
    role: str,
    params: Mapping[str, Any],
    channels: Mapping[str, Any],
    output: str,
    tags: Mapping[str, str],
    checkpoints: str | None = None,
) -> dict[str, Any]:
    """Members of CreateTrainingJob but for the name.

    Args:
        settings: image, disk, spot, limits.
        resources: machines and time.
        instance: machine type.
        role: ARN of the role that the container has.
        params: hyperparameters.
        channels: address in S3 by the channel's name.
        output: below the fleet's root, where outputs go.
        tags: of the job.
        checkpoints: below the fleet's root, where spot training keeps what a script saves; None
            for nowhere.
    """
    image, _ = image_and_role(settings)
    limit = math.ceil(resources.max_runtime_s or settings.max_runtime_s)
    stopping = {"MaxRuntimeInSeconds": limit}
    if settings.training_spot:  # it has to be at least the run's own limit
        stopping["MaxWaitTimeInSeconds"] = 2 * limit
    kept = {}
    if settings.training_spot and checkpoints is not None:
        kept["CheckpointConfig"] = {"S3Uri": f"{settings.root}/{checkpoints}"}
    return {
        **kept,
        "HyperParameters": dict(params),
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": _entry(channels),
        },
        "RoleArn": role,
        "InputDataConfig": [_channel(name, address) for name, address in channels.items()],
        "OutputDataConfig": {"S3OutputPath": f"{settings.root}/{output}"},
        "ResourceConfig": {
            "InstanceType": instance,
            "InstanceCount": resources.count,
            "VolumeSizeInGB": settings.training_volume_gib,
        },
        "StoppingCondition": stopping,
        "EnableManagedSpotTraining": settings.training_spot,
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }


def _entry(channels: Mapping[str, Any]) -> list[str]:
    """The command: the entry script, where all that it needs lies, SageMaker's own names of it."""
    words = {
        "--output": f"{ML}/model",
        "--work": ML,
        "--params": f"{ML}/input/config/hyperparameters.json",
        "--failure": f"{ML}/output/failure",
        "--checkpoints": f"{ML}/checkpoints",
    }
    known = {"SM_MODEL_DIR": f"{ML}/model", "SM_OUTPUT_DATA_DIR": f"{ML}/output/data"}
    if "training" in channels:
        words["--data"] = known["SM_CHANNEL_TRAINING"] = f"{ML}/input/data/training"
    entry = ["python3", f"{ML}/input/data/code/{training_entry.ENTRY}"]
    entry += [word for pair in words.items() for word in pair]
    return entry + [word for key, place in known.items() for word in ("--set", f"{key}={place}")]


def tags_of(settings: AwsSettings, data: Channel | None) -> dict[str, str]:
    """What tells whose a job is, and what it was trained on."""
    tags = {"edgefleet:prefix": settings.prefix}
    if data is not None and data.digest is not None:
        tags["edgefleet:data"] = data.digest
    return tags


def _channel(name: str, address: object) -> dict[str, Any]:
    where = {
        "S3DataType": "S3Prefix",
        "S3Uri": address,
        "S3DataDistributionType": "FullyReplicated",
    }
    return {"ChannelName": name, "DataSource": {"S3DataSource": where}, "InputMode": "File"}


def hyperparameters(params: Mapping[str, Param]) -> dict[str, str]:
    """Parameters as SageMaker takes them: text by name, here JSON.

    Raises:
        LimitExceededError: there are too many, or one is too long.
    """
    texts = {key: json.dumps(value) for key, value in params.items()}
    wrong = [key for key, text in texts.items() if len(key) > MAX_KEY or len(text) > MAX_VALUE]
    if wrong or len(texts) > MAX_PARAMS:
        raise LimitExceededError(
            f"SageMaker takes {MAX_PARAMS} parameters, names of {MAX_KEY} characters and values of "
            f"{MAX_VALUE}; over it: {', '.join(key[:40] for key in wrong) or len(texts)}",
            cure="put them in a file of the data",
        )
    return texts
