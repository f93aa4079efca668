"""A mock that is started again on its folder goes on where it was."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from lightkube import ApiError

from edgefleet.errors import ConfigurationError
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_kubernetes.state import KubernetesStateStore
from providers.kubernetes.tests.cloud.api_samples import config_map


def _clients(cloud: KubernetesMock) -> Clients:
    return Clients(KubernetesSettings(kubeconfig=cloud.kubeconfig, max_attempts=1))


def test_addresses_users_and_trust_stay(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        cloud = KubernetesMock(tmp_path)
        cloud.start()
        found.append((cloud.kubeconfig.read_text(), cloud.stage.add_user("ada")))
        cloud.stop()
    assert found[0] == found[1]


def test_documents_keep_their_tags(tmp_path: Path) -> None:
    tag = None
    for data in (b"1", b"2"):
        cloud = KubernetesMock(tmp_path)
        cloud.start()
        clients = _clients(cloud)
        with closing(KubernetesStateStore(clients, KubernetesSettings())) as state:
            tag = state.write("doc", data, expect=tag)
        cloud.stop()


def test_tokens_of_accounts_hold_on(tmp_path: Path) -> None:
    cloud = KubernetesMock(tmp_path)
    cloud.start()
    token = cloud.stage.authentication.issue("default", "default").token
    cloud.stop()
    cloud = KubernetesMock(tmp_path)
    cloud.start()
    assert cloud.stage.authentication.holder(token) is not None
    cloud.stop()


def test_the_past_before_the_start_is_gone_for_watches(tmp_path: Path) -> None:
    cloud = KubernetesMock(tmp_path)
    cloud.start()
    since = cloud.stage.store.version
    cloud.stage.store.create(config_map(namespace="default"))
    cloud.stop()
    cloud = KubernetesMock(tmp_path)
    cloud.start()
    assert cloud.stage.store.find("ConfigMap", "a", "default") is not None
    with closing(_clients(cloud)) as clients:
        query = {"watch": "true", "resourceVersion": since}
        with clients.stream("api/v1/configmaps", query=query) as lines:
            assert '"code": 410' in next(lines)
    cloud.stop()


def test_nobody_but_its_owner_reads_the_kubeconfig(tmp_path: Path) -> None:
    cloud = KubernetesMock(tmp_path)
    cloud.start()
    mode = cloud.kubeconfig.stat().st_mode
    cloud.stop()
    assert mode & 0o077 == 0


def test_a_mock_that_doesnt_run_says_so(tmp_path: Path) -> None:
    cloud = KubernetesMock(tmp_path)
    for ask in (lambda: cloud.settings, lambda: cloud.environment, lambda: cloud.stage):
        with pytest.raises(ConfigurationError, match=r"start it first"):
            ask()
    cloud.stop()


def test_a_version_of_kubernetes_can_be_chosen(tmp_path: Path) -> None:
    cloud = KubernetesMock(tmp_path, version="1.29")
    cloud.start()
    with closing(_clients(cloud)) as clients:
        assert clients.call("GET", "version")["minor"] == "29"
        with pytest.raises(ApiError):
            clients.call("GET", "apis/resource.k8s.io/v1")
    cloud.stop()
