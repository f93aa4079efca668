"""What a scraper reads from a whole runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.support import Repository
from edgefleet.testing.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


class Figure(NamedTuple):
    value: float
    labels: dict[str, str]


def test_a_device_tells_what_its_report_tells(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "fleet")
    release = repository.release({"digits": publish(repository, 2)})
    repository.point(release)
    with Device(tmp_path / "cam-07", repository) as device:
        report = device.active(release)
        with device.client() as client:
            assert client.factor() == 2
        with urlopen(f"{report.endpoint}/metrics", timeout=90) as answer:
            text = answer.read().decode()
    families = text_string_to_metric_families(text)
    found = {s.name: Figure(s.value, s.labels) for family in families for s in family.samples}
    info = {"release": release, "wanted": release, "state": "active"}
    assert found["edgefleet_release_info"] == Figure(1, info)
    assert found["edgefleet_store_bytes"].value == report.health.store_bytes
    assert found["edgefleet_store_max_bytes"].value == 8 << 30
    assert found["edgefleet_fetched_bytes_total"].value == report.health.bytes_fetched
    assert found["edgefleet_events_dropped_total"].value == 0
    assert found["edgefleet_spool_bytes"].value >= 0
    assert found["edgefleet_model_info"].labels["provider"] == "CPUExecutionProvider"
    assert found["nv_inference_count_total"].labels == {"model": "digits", "version": "1"}
    assert found["nv_inference_count_total"].value >= 1


def test_over_a_metered_link_predictions_wait_and_the_device_says_why(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "fleet")
    release = repository.release({"digits": publish(repository, 2)})
    repository.point(release)
    says = tmp_path / "metered"
    says.write_text("yes")
    with Device(tmp_path / "cam-07", repository, "--metered", str(says)) as device:
        report = device.active(release)
        with device.client() as client:
            assert client.factor() == 2

        def waits() -> bool:
            with urlopen(f"{report.endpoint}/metrics", timeout=90) as answer:
                return 'edgefleet_sync_waits{why="metered"} 1' in answer.read().decode()

        eventually(waits)
        assert device.recorded() == 0
        says.write_text("no")
        eventually(lambda: device.recorded() == 1)
