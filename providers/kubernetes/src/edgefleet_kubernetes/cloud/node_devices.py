"""Devices of the mock: nodes that the mock's own operator enrols, whatever the environment says."""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from edgefleet.errors import WaitTimeoutError
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.deployer import KubernetesDeployer
from edgefleet_kubernetes.names import report_name, runtime_name
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_kubernetes.state import KubernetesStateStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_kubernetes.cloud.stage import Stage

REPORT_S = 120.0
POLL_S = 0.05


def add_device(
    stage: Stage, given: Mapping[str, Any], name: str, *, group: str, labels: Mapping[str, str]
) -> None:
    """Add a node, enrol it and start it, and wait until its runtime has reported.

    Args:
        stage: the cluster.
        given: settings of the provider.
        name: of the node.
        group: of the fleet.
        labels: of the device; its runtime takes them for its hardware, in place of this machine's.
    """
    settings = KubernetesSettings(**given)
    namespace = settings.namespace
    variables = {"EDGEFLEET_LABELS": json.dumps(dict(labels))} if labels else {}
    stage.nodes.add_node(name, variables=variables)
    stage.nodes.make_folder(name, settings.host_path)
    clients = Clients(settings)
    with closing(
        KubernetesDeployer(
            clients,
            settings,
            name="kubernetes",
            state=lambda: KubernetesStateStore(clients, settings),
        )
    ) as deployer:
        if stage.store.find("DaemonSet", runtime_name(settings.prefix, group), namespace) is None:
            deployer.install(group=group)
        deployer.enroll(name, group=group, labels=dict(labels))
    _wait_for_report(stage, settings, name)


def _wait_for_report(stage: Stage, settings: KubernetesSettings, name: str) -> None:
    """A pod is ready when it serves a model, but its runtime reports before there is any."""
    report, until = report_name(settings.prefix, name), time.monotonic() + REPORT_S
    while stage.store.find("ConfigMap", report, settings.reports_namespace) is None:
        if time.monotonic() > until:
            raise WaitTimeoutError(f"device {name} hasn't reported after {REPORT_S:.0f} s")
        time.sleep(POLL_S)
