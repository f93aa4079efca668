"""The objects of a run: valid by the vendors' schemas, restricted, and free of secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from edgefleet.errors import LimitExceededError, ProfileError, UnsupportedError
from edgefleet.interfaces.training import Resources, TrainingJob
from edgefleet_kubernetes import pod_entry
from edgefleet_kubernetes.job_request import (
    DISRUPTED,
    Asked,
    Claim,
    job_object,
    train_job_object,
)
from edgefleet_kubernetes.settings import KubernetesSettings, Toleration

CONTRACTS = Path(__file__).parents[5] / "shared" / "contracts" / "k8s"
ASKED = Asked("plant-run-1", "https://r.example/v2/m/training", "sha256:c", None, None, "outputs-1")
VERSIONS = ("1.31", "1.37")


def settings(**more: object) -> KubernetesSettings:
    told = {"prefix": "plant", "training_image": "docker.io/library/python:3.13", **more}
    return KubernetesSettings.model_validate(told)


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    script = tmp_path / "train.py"
    script.touch()
    return TrainingJob(script=script, params={"epochs": 3})


def pod(found: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


FULL = settings(
    training_secret="train-registry",
    training_checkpoints="checkpoints",
    training_node_selector={"pool": "train"},
    training_tolerations=(Toleration(key="gpu", effect="NoSchedule"),),
    training_service_account="trainer",
)
WANTS = Resources(instance="g2-standard-8", gpus=2, memory_gib=1.5, max_runtime_s=60)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("told", [settings(), FULL], ids=["plain", "full"])
def test_a_job_is_valid_by_kubernetes_own_schema(
    job: TrainingJob, told: KubernetesSettings, version: str
) -> None:
    asked = ASKED._replace(claim=Claim("sensor-data", "2026"))
    wants = job.model_copy(update={"resources": WANTS})
    kubernetes_validate.validate(job_object(wants, asked, told), version, strict=True)


def test_a_train_job_is_valid_by_its_definition(job: TrainingJob) -> None:
    if not CONTRACTS.is_dir():
        pytest.skip("the vendors' contracts don't lie beside this checkout")
    told = yaml.safe_load((CONTRACTS / "trainer.kubeflow.org_trainjobs.yaml").read_text())
    schema = told["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    wants = job.model_copy(update={"resources": Resources(count=4, gpus=1, memory_gib=2)})
    found = train_job_object(wants, ASKED, settings(training_runtime="torch-distributed"))
    jsonschema.Draft202012Validator(schema).validate(found)
    trainer = schema["properties"]["spec"]["properties"]["trainer"]["properties"]
    assert found["spec"]["trainer"].keys() <= trainer.keys()
    assert found["spec"]["trainer"]["numNodes"] == 4


def test_a_run_that_has_ended_is_kept_for_as_long_as_the_profile_says(job: TrainingJob) -> None:
    found = job_object(job, ASKED, settings(training_ttl_s=3600))
    assert found["spec"]["ttlSecondsAfterFinished"] == 3600


def test_a_gpu_is_asked_for_by_its_device_plugin(job: TrainingJob) -> None:
    wants = job.model_copy(update={"resources": Resources(gpus=2)})
    found = pod(job_object(wants, ASKED, settings(training_gpu="amd.com/gpu")))
    assert found["containers"][0]["resources"]["limits"] == {"amd.com/gpu": "2"}


def test_data_in_a_volume_are_mounted_to_be_read_only(job: TrainingJob) -> None:
    found = pod(job_object(job, ASKED._replace(claim=Claim("sensor-data", ".")), settings()))
    assert {
        "name": "data",
        "persistentVolumeClaim": {"claimName": "sensor-data", "readOnly": True},
    } in found["volumes"]
    assert any(
        mount["name"] == "data" and mount["readOnly"]
        for mount in found["containers"][0]["volumeMounts"]
    )


def test_a_pod_is_restricted(job: TrainingJob) -> None:
    found = pod(job_object(job, ASKED, FULL))
    container = found["containers"][0]
    assert found["securityContext"]["runAsNonRoot"]
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not found["automountServiceAccountToken"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_secret_is_named_and_not_shown(job: TrainingJob) -> None:
    variables = pod(job_object(job, ASKED, FULL))["containers"][0]["env"]
    found = next(one for one in variables if one["name"] == pod_entry.AUTH)
    assert "value" not in found
    assert found["valueFrom"]["secretKeyRef"]["name"] == "train-registry"


def test_what_kubernetes_takes_away_is_not_a_failure_and_a_failure_is_final(
    job: TrainingJob,
) -> None:
    spec = job_object(job, ASKED, settings())["spec"]
    assert spec["backoffLimit"] == 0
    rules = spec["podFailurePolicy"]["rules"]
    assert rules == [{"action": "Ignore", "onPodConditions": [DISRUPTED]}]


@pytest.mark.parametrize(
    "asked,wants,told",
    [
        (ASKED._replace(claim=Claim("a", ".")), Resources(count=2), {}),
        (ASKED, Resources(count=2, instance="large"), {}),
        (ASKED, Resources(count=2), {"training_checkpoints": "kept"}),
    ],
    ids=["volume", "instance", "checkpoints"],
)
def test_what_a_runtime_decides_is_refused_for_several_machines(
    job: TrainingJob, asked: Asked, wants: Resources, told: dict[str, str]
) -> None:
    with pytest.raises(UnsupportedError, match="several machines"):
        train_job_object(
            job.model_copy(update={"resources": wants}),
            asked,
            settings(training_runtime="torch-distributed", **told),
        )


def test_a_profile_without_an_image_is_told_what_to_set(job: TrainingJob) -> None:
    with pytest.raises(ProfileError, match="training_image"):
        job_object(job, ASKED, KubernetesSettings(prefix="plant"))


def test_parameters_that_no_variable_takes_are_refused(job: TrainingJob) -> None:
    large = job.model_copy(update={"params": {"text": "x" * (64 << 10)}})
    with pytest.raises(LimitExceededError, match="65536 fit"):
        job_object(large, ASKED, settings())
