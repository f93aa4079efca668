"""The conformance kit over Jobs on the mock cluster, whose nodes run the pods. No gaps."""

from __future__ import annotations

import pytest

from edgefleet.testing.kit.trainer import TrainerConformance
from edgefleet_kubernetes.trainer import KubernetesTrainer


class TestTrainer(TrainerConformance):
    @pytest.fixture
    def trainer(self, on_cluster: KubernetesTrainer) -> KubernetesTrainer:
        return on_cluster
