"""What ``GET /metrics`` tells: figures of the models by the names that users of Triton chart.

Their meaning is Triton's (docs/user_guide/metrics.md of triton-inference-server/server). A
request counts as one inference whatever its shape, as there for a model without a batch dimension
of its own. A model's counters begin at 0 when it is loaded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgefleet_runtime import __version__
from edgefleet_runtime.report import host
from edgefleet_runtime.serve.messages import Response
from edgefleet_runtime.serve.prometheus import CONTENT_TYPE, Family, Sample, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edgefleet_runtime.serve.table import ModelTable

    Source = Callable[[], Iterable[Family]]
    """Gives further families; called in another thread than the event loop's."""

_COUNTED = (
    ("nv_inference_request_success", "Requests answered with outputs"),
    ("nv_inference_request_failure", "Requests refused or failed"),
    ("nv_inference_count", "Inferences performed"),
    ("nv_inference_exec_count", "Runs of the model for them"),
    ("nv_inference_request_duration_us", "Microseconds from requests to their answers, together"),
    ("nv_inference_queue_duration_us", "Microseconds of waiting for the model, together"),
    ("nv_inference_compute_input_duration_us", "Microseconds of reading inputs, together"),
    ("nv_inference_compute_infer_duration_us", "Microseconds in the model, together"),
    ("nv_inference_compute_output_duration_us", "Microseconds of writing answers, together"),
)


class Metrics:
    """Answers scrapes.

    Args:
        table: the models to tell of.
        source: tells of what is around them.
    """

    def __init__(self, table: ModelTable, source: Source | None = None) -> None:
        self._table = table
        self._source = source

    def answer(self) -> asyncio.Future[Response]:
        """The figures of now, gathered beside the event loop, for they may need the disk."""
        return asyncio.get_running_loop().run_in_executor(None, self._response)

    def families(self) -> list[Family]:
        """The figures of now, whoever asks; looks at the disk where the source does."""
        families = [*model_families(self._table), *process_families()]
        if self._source is not None:
            families += self._source()
        return families

    def _response(self) -> Response:
        return Response(200, (render(self.families()),), content_type=CONTENT_TYPE)


def model_families(table: ModelTable) -> Iterator[Family]:
    """Figures of the models that a table has now."""
    rows: list[tuple[dict[str, str], tuple[int, ...]]] = []
    infos: list[Sample] = []
    for served in table:
        labels = {"model": served.name, "version": served.version}
        requests, runs = served.requests.totals(), served.figures()
        counts = (
            requests.answered,
            requests.failed,
            runs.inferences,
            runs.executions,
            round(requests.duration_us),
            round(requests.queue_us),
            round(requests.input_us),
            round(requests.infer_us),
            round(requests.output_us),
        )
        rows.append((labels, counts))
        about = {
            "variant": served.variant,
            "bundle": served.bundle,
            "engine": served.model.engine,
            "provider": ",".join(served.model.providers),
        }
        infos.append(Sample(1, {**labels, **about}))
    for place, (name, about_name) in enumerate(_COUNTED):
        samples = tuple(Sample(counts[place], labels) for labels, counts in rows)
        yield Family(name, "counter", about_name, samples)
    yield Family("edgefleet_model_info", "gauge", "What serves each model", tuple(infos))


def process_families() -> Iterator[Family]:
    """Figures of this process."""
    version = Sample(1, {"version": __version__})
    yield Family("edgefleet_runtime_info", "gauge", "The runtime's version", (version,))
    memory = host.rss_bytes()
    if memory is not None:
        about = "Resident memory of this process in bytes"
        yield Family("process_resident_memory_bytes", "gauge", about, (Sample(memory),))
