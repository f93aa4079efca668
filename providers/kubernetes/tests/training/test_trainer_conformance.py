"""The conformance kit over Jobs on the mock cluster, whose nodes run the pods. No gaps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit.training_service import TrainingServiceConformance
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.trainer import KubernetesTrainer


class TestTrainer(TrainingServiceConformance):
    @pytest.fixture
    def trainer(self, on_cluster: KubernetesTrainer) -> KubernetesTrainer:
        return on_cluster

    @pytest.fixture
    def other(self, trainers: Callable[..., KubernetesTrainer]) -> KubernetesTrainer:
        return trainers(prefix="other")

    @pytest.fixture
    def missing_data(self) -> str:
        return "pvc://nothing"

    @pytest.fixture
    def lose_answer(self, cluster: KubernetesMock) -> Callable[[], None]:
        return lambda: cluster.rules.add(Rule("jobs.patch", cut_answer_at=0))
