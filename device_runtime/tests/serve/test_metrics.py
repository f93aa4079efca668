"""What a scraper reads, held against Prometheus' own parser."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from device_runtime.tests.serving import WAIT_S, FakeModel, served, serving, table_of
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.meter import RequestMeter
from edgefleet_runtime.serve.prometheus import Family, Sample, render

if TYPE_CHECKING:
    from device_runtime.tests.serving import Gate, Running

M1 = {"model": "m", "version": "1"}


def parsed(text: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Sample name -> labels and value of each.

    The parser puts `_total` behind every counter's name, whether the text has it or not.
    """
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            name = sample.name.removesuffix("_total")
            found.setdefault(name, []).append((sample.labels, sample.value))
    return found


def scraped(running: Running) -> dict[str, list[tuple[dict[str, str], float]]]:
    reply = running.ask("GET", "/metrics")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(reply.body)


def test_requests_are_counted_by_tritons_names_for_each_model() -> None:
    table = table_of(served(FakeModel()), served(FakeModel(), "other", "7"))
    with serving(table) as running:
        for _ in range(3):
            assert running.infer(1.0).status == 200
        assert running.infer(1.0, name="other").status == 200
        assert running.ask("POST", "/v2/models/m/infer", b"{").status == 400
        assert running.infer(1.0, name="unknown").status == 404
        found = scraped(running)
    other = {"model": "other", "version": "7"}
    for name in ("request_success", "count", "exec_count"):
        assert found[f"nv_inference_{name}"] == [(M1, 3), (other, 1)]
    assert found["nv_inference_request_failure"] == [(M1, 1), (other, 0)]
    requests_us = found["nv_inference_request_duration_us"][0][1]
    runs_us = found["nv_inference_compute_infer_duration_us"][0][1]
    assert requests_us > runs_us > 0


def test_counters_have_the_very_names_that_dashboards_ask_for() -> None:
    with serving(table_of(served(FakeModel()))) as running:
        lines = running.ask("GET", "/metrics").body.decode().splitlines()
    assert "# TYPE nv_inference_request_success counter" in lines
    assert 'nv_inference_request_success{model="m",version="1"} 0' in lines


def test_a_failed_run_and_a_refused_one_are_failures() -> None:
    def fail() -> None:
        raise RuntimeError

    with serving(table_of(served(FakeModel(during=fail)))) as running:
        assert running.infer(1.0).status == 500
        assert scraped(running)["nv_inference_request_failure"] == [(M1, 1)]
    with serving(table_of(served(FakeModel())), limits=Limits(max_requests=0)) as running:
        assert running.infer(1.0).status == 503
        assert scraped(running)["nv_inference_request_failure"] == [(M1, 1)]


def test_each_model_tells_what_it_runs_on() -> None:
    with serving(table_of(served(FakeModel()))) as running:
        [(labels, value)] = scraped(running)["edgefleet_model_info"]
    assert value == 1
    assert labels == {
        **M1,
        "variant": "fp32",
        "bundle": "sha256:0",
        "engine": "fake 1.0",
        "provider": "FakeProvider",
    }


def test_a_server_without_models_tells_of_its_process() -> None:
    with serving(table_of()) as running:
        found = scraped(running)
    assert found["process_resident_memory_bytes"][0][1] > 1 << 20
    assert "nv_inference_count" not in found


def test_the_owner_adds_its_figures() -> None:
    family = Family("line_speed", "gauge", "Parts a minute", (Sample(12.5, {"line": "3"}),))
    with serving(table_of(), figures=lambda: [family]) as running:
        assert scraped(running)["line_speed"] == [({"line": "3"}, 12.5)]


def test_a_scrape_waits_for_no_model(gate: Gate) -> None:
    with serving(table_of(served(FakeModel(during=gate))), threads=1) as running:
        client = threading.Thread(target=running.infer, args=(1.0,))
        client.start()
        gate.wait_for_run()
        assert scraped(running)["nv_inference_request_success"] == [(M1, 0)]
        gate.open.set()
        client.join(WAIT_S)


def test_figures_are_only_read() -> None:
    with serving(table_of()) as running:
        assert running.ask("HEAD", "/metrics").status == 200
        assert running.ask("POST", "/metrics", b"").status == 405


@given(
    labels=st.dictionaries(
        st.from_regex("[a-z][a-z0-9_]*", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"])),
        max_size=3,
    ),
    value=st.floats() | st.integers(0, 2**53),
    about=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_any_label_and_number_come_through(
    labels: dict[str, str], value: float, about: str
) -> None:
    text = render([Family("figure", "gauge", about, (Sample(value, labels),))])
    [family] = text_string_to_metric_families(text.decode())
    [sample] = family.samples
    assert sample.labels == labels
    assert sample.value == value or (math.isnan(sample.value) and math.isnan(value))


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_what_is_no_text_stops_no_scrape(text: str) -> None:
    assert b'x="' in render([Family("figure", "gauge", "", (Sample(1, {"x": text}),))])


def test_threads_lose_no_count() -> None:
    meter, start = RequestMeter(), threading.Barrier(4)

    def count() -> None:
        start.wait(WAIT_S)
        for _ in range(5000):
            meter.answered(2, 0.5, 0.125, 0.125, 0.125)
            meter.failed()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    totals = meter.totals()
    assert (totals.answered, totals.failed) == (40_000, 20_000)
    assert totals.duration_us == 10_000.0
    assert [*totals[3:], totals.output_us] == [2500.0] * 4
