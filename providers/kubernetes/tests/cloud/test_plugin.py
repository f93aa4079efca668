"""The plugin, its settings, and the names of its objects."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from edgefleet.errors import ProfileError
from edgefleet.plugins import discovery
from edgefleet.plugins.provider import Role
from edgefleet_kubernetes import names
from edgefleet_kubernetes.plugin import KubernetesProvider
from edgefleet_kubernetes.settings import KubernetesSettings

HEAVY = (
    "cel",
    "httpx",
    "httpx2",
    "kubernetes_validate",
    "lightkube",
    "trustme",
    "werkzeug",
    "yaml",
)
LABEL = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1035, as names of Services are


def test_the_entry_point_names_it() -> None:
    assert isinstance(discovery.provider("kubernetes"), KubernetesProvider)


def test_it_serves_every_role() -> None:
    assert KubernetesProvider.roles == frozenset(Role)


def test_naming_it_imports_nothing_heavy() -> None:
    script = (
        "import json, sys; from edgefleet.plugins import discovery; "
        "provider = discovery.provider('kubernetes'); provider.settings_type(); "
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = json.loads(done.stdout)
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefix": "9lives"},
        {"prefix": "Capitals"},
        {"contexts": ["a", "a"]},
        {"namespace": "Edge"},
        {"namespace": "x" * 60},
        {"registry": "https://registry.example/models"},
        {"registry": "oci://user:secret@registry.example/models"},
        {"registry": "oci://registry.example"},
        {"registry": "oci://registry.example/Models"},
        {"mirrors": ["https://user:secret@cdn.example.com/x"]},
        {"events": "https://user:secret@events.example"},
        {"events": "ftp://events.example"},
        {"host_path": "relative"},
        {"max_unavailable": "0"},
        {"device_resources": {"nvidia.com/gpu": "many"}},
        {"tolerations": [{"operator": "Sometimes"}]},
        {"token": "x"},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KubernetesSettings.model_validate(wrong)


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"registry": "oci://localhost:5000/models/"},
        {"events": "mqtts://broker.example:8883/plant"},
        {"events": "pubsub://project/topic"},
        {"device_resources": {"nvidia.com/gpu": "1"}, "runtime_class": "nvidia"},
        {"tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
        {"max_unavailable": "25%"},
    ],
    ids=str,
)
def test_right_settings_are_taken(right: dict[str, Any]) -> None:
    assert KubernetesSettings.model_validate(right).reports_namespace == "edgefleet-reports"


def test_a_setting_that_is_needed_is_named_with_its_table() -> None:
    with pytest.raises(ProfileError, match=r"set `registry` in the profile's table"):
        KubernetesSettings().needed("registry", "the registry role")


@pytest.mark.parametrize("group", ["a", "line-3", "Line_3", "x" * 63, "a.b", "9", "A" * 63])
def test_every_group_has_names_that_services_may_have(group: str) -> None:
    for prefix in ("p", "p" * 32):
        for name in (names.runtime_name(prefix, group), names.pointer_name(prefix, group)):
            assert LABEL.fullmatch(name), name


def test_groups_that_differ_have_names_that_differ() -> None:
    groups = ["line-3", "Line-3", "line_3", "line.3", "x" * 62, "x" * 63]
    assert len({names.runtime_name("p", group) for group in groups}) == len(groups)


def test_a_report_ends_in_the_nodes_name() -> None:
    assert names.report_name("plant", "cam-07.site") == "plant-report-cam-07.site"


def test_a_plain_name_is_readable() -> None:
    assert names.pointer_name("plant", "line-3") == "plant-pointer-line-3"
