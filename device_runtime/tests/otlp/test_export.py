"""Metrics and traces reach a collector, and one that is gone costs serving nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.onnx_models import plus
from device_runtime.tests.otlp.collector import Collector, collecting
from device_runtime.tests.serving import FakeModel, served, serving, table_of
from device_runtime.tests.standalone.test_serve import infer
from device_runtime.tests.standalone.test_serve import serving as process
from device_runtime.tests.support import Repository
from edgefleet.errors import InvalidInputError
from edgefleet.testing.cloud.ports import HeldPort
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.cli import main
from edgefleet_runtime.otlp import export as module
from edgefleet_runtime.otlp.export import OtlpExport
from edgefleet_runtime.otlp.extra import otlp_export
from edgefleet_runtime.serve.metrics import model_families

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def attributes(span: Any) -> dict[str, Any]:
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes
    }


def dropped(export: OtlpExport) -> dict[str, float]:
    (family,) = export.families()
    return {sample.labels["signal"]: sample.value for sample in family.samples}


def fast(url: str | None, **more: Any) -> OtlpExport:
    return OtlpExport(url, **{"spans_every_s": 0.01, "metrics_every_s": 0.01, **more})


def observe(export: OtlpExport, trace: str | None = SAMPLED, run_us: float = 1500.0) -> None:
    export.observe(served(FakeModel(), version="7"), {}, run_us, "part-1", trace)


def test_an_answer_is_a_span_below_the_one_that_the_request_names(collector: Collector) -> None:
    export = fast(collector.address, instance="cam-07", metrics_every_s=60.0)
    export.start(tuple)
    observe(export)
    eventually(lambda: collector.spans)
    export.stop(10.0)
    (span,) = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.name) == (TRACE, SPAN, "infer m")
    assert len(span.span_id) == 8 != span.span_id.count(0)
    assert span.span_id != span.parent_span_id
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_500_000
    assert attributes(span) == {
        "edgefleet.model.name": "m",
        "edgefleet.model.version": "7",
        "edgefleet.run_us": 1500.0,
        "edgefleet.request.id": "part-1",
    }
    resource = attributes(collector.traces[0].resource_spans[0].resource)
    assert resource["service.name"] == "edgefleet-runtime"
    assert resource["service.instance.id"] == "cam-07"


def test_a_request_through_the_server_becomes_a_span(collector: Collector) -> None:
    table = table_of(served(FakeModel()))
    export = fast(collector.address, metrics_every_s=60.0)
    table.observers.append(export.observe)
    export.start(tuple)
    with serving(table) as running:
        body = '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'
        for trace in (SAMPLED, UNSAMPLED, "nonsense"):
            running.ask("POST", "/v2/models/m/infer", body, {"traceparent": trace})
        eventually(lambda: collector.spans)
    export.stop(10.0)
    assert [span.trace_id.hex() for span in collector.spans] == [TRACE]


def test_figures_are_those_of_a_scrape(collector: Collector) -> None:
    model = served(FakeModel())
    model.requests.answered(2, 500.0, 20.0, 30.0, 400.0)
    table = table_of(model)
    export = fast(collector.address)
    export.start(lambda: model_families(table))
    eventually(lambda: collector.messages)
    export.stop(10.0)
    told = collector.metrics()
    assert told.keys() == {family.name for family in model_families(table)}
    counted = told["nv_inference_request_success"].sum
    assert (counted.is_monotonic, counted.aggregation_temporality) == (True, 2)  # cumulative
    (point,) = counted.data_points
    assert (point.as_int, attributes(point)) == (2, {"model": "m", "version": "1"})
    assert 0 < point.start_time_unix_nano <= point.time_unix_nano
    (about,) = told["edgefleet_model_info"].gauge.data_points
    assert attributes(about)["engine"] == "fake 1.0"


def test_what_waits_is_sent_at_the_end(collector: Collector) -> None:
    export = OtlpExport(collector.address, spans_every_s=60.0, metrics_every_s=60.0)
    export.start(lambda: model_families(table_of(served(FakeModel()))))
    observe(export)
    export.stop(10.0)
    assert (len(collector.spans), len(collector.messages)) == (1, 1)


def test_the_environment_says_where_and_how(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "line-3")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
    export = OtlpExport(None)
    export.start(lambda: model_families(table_of(served(FakeModel()))))
    eventually(lambda: collector.messages)
    observe(export)
    export.stop(10.0)
    assert {headers["api-key"] for headers in collector.headers} == {"secret"}
    assert collector.headers[0]["content-encoding"] == "gzip"
    resource = attributes(collector.traces[0].resource_spans[0].resource)
    assert resource["service.name"] == "line-3"


def test_a_full_queue_drops_and_counts(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    export = OtlpExport(collector.address, spans_every_s=60.0, metrics_every_s=60.0)
    for _ in range(5):
        observe(export)
    assert dropped(export) == {"traces": 2, "metrics": 0}
    export.start(tuple)
    export.stop(10.0)
    assert len(collector.spans) == 3


def test_a_collector_that_is_gone_is_told_once_and_told_again_when_it_is_back(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    collector.status = 400
    export = fast(collector.address)
    export.start(lambda: model_families(table_of(served(FakeModel()))))
    observe(export)
    eventually(lambda: dropped(export)["metrics"] >= 3 and dropped(export)["traces"] == 1)
    collector.status = 200
    eventually(lambda: collector.messages)
    export.stop(10.0)
    said = [record.getMessage() for record in caplog.records if "collector" in record.getMessage()]
    assert said == [
        "the collector takes no metrics or traces: they are dropped, counted",
        "the collector takes metrics and traces again",
    ]
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry.exporter")]


def test_nobody_listening_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with closing(HeldPort()) as nobodys:
        export = fast(f"http://127.0.0.1:{nobodys.number}", timeout_s=0.2)
        export.start(tuple)
        observe(export)
        eventually(lambda: dropped(export)["traces"] == 1)
        export.stop(10.0)


def test_answers_and_the_end_do_not_wait_for_a_collector_that_hangs(collector: Collector) -> None:
    collector.hold.clear()
    table = table_of(served(FakeModel()))
    export = fast(collector.address, metrics_every_s=60.0)
    table.observers.append(export.observe)
    export.start(tuple)
    observe(export)
    assert collector.asked.acquire(timeout=90)
    with serving(table) as running:
        for _ in range(50):
            assert running.infer(1.0).status == 200
    ended = threading.Thread(target=export.stop, args=(1.0,))
    ended.start()
    ended.join(90)
    assert not ended.is_alive()
    assert not collector.hold.is_set()
    collector.hold.set()
    export._thread.join(90)  # what it says is for no other test's log


def test_a_server_sends_what_it_tells_at_metrics_too(collector: Collector, tmp_path: Path) -> None:
    file = plus(tmp_path / "one.onnx", 1)
    with process("--model", f"one={file}", "--otlp", collector.address) as (endpoint, server):
        assert infer(endpoint, "one", [1.0], [1]) == [2.0]
        server.terminate()
        assert server.wait(90) == 0
    told = collector.metrics()
    (point,) = told["nv_inference_count"].sum.data_points
    assert point.as_int == 1
    assert "edgefleet_otlp_dropped_total" in told


def test_a_device_sends_its_figures_under_its_name(collector: Collector, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "fleet")
    release = repository.release({"digits": publish(repository, 3)})
    repository.point(release)
    with Device(tmp_path / "cam-07", repository, "--otlp", collector.address) as device:
        device.active(release)
        assert device.process is not None
        device.process.terminate()
        assert device.ended() == 0
    (about,) = collector.metrics()["edgefleet_release_info"].gauge.data_points
    assert attributes(about)["release"] == release
    resource = attributes(collector.messages[-1].resource_metrics[0].resource)
    assert resource["service.instance.id"] == "cam-07"


@pytest.mark.parametrize("url", ["collector:4318", "ftp://c", "http://", "http://[", "http://c:0"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="collector"):
        otlp_export(url)


def test_without_the_extra_its_name_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = plus(tmp_path / "one.onnx", 1)
    monkeypatch.delitem(sys.modules, "edgefleet_runtime.otlp.export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert main(["serve", "--model", f"one={file}", "--otlp"]) == 1
    assert "edgefleet-runtime[otlp]" in capsys.readouterr().err


def test_a_runtime_without_it_imports_none_of_it() -> None:
    code = (
        "import edgefleet_runtime.node, edgefleet_runtime.standalone.serving, sys;"
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'requests'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
