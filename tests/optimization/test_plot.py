"""The report as a picture, as JSON, and read again from a bundle."""

from __future__ import annotations

import hashlib
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import InvalidInputError, MissingExtraError, NotFoundError
from edgefleet.optimization import (
    CandidateRow,
    OptimizationReport,
    TargetRow,
    bundle_from_onnx,
    load_report,
    optimize,
    report_of,
)
from edgefleet.optimization.plot import Point, draw, front
from edgefleet.protocol.layout import BundleLayout

if TYPE_CHECKING:
    from pathlib import Path

    from tests.optimization.conftest import Digits

pytest.importorskip("matplotlib")

OUTCOMES = ("shipped", "passed", "rejected")


def row(number: int, **changed: Any) -> CandidateRow:
    """One of several, each smaller, faster and worse than the one before."""
    facts = {
        "variant": f"candidate-{number}",
        "precision": "int8",
        "outcome": OUTCOMES[number % 3],
        "why": "",
        "size_bytes": 5_000_000 // (number + 1),
        "accuracy": 0.97 - number * number / 4000,
        "p50_ms": 4.0 / (number + 1),
        "p99_ms": 9.0,
    }
    return CandidateRow.model_validate(facts | changed)


def report(*rows: CandidateRow, model: str = "parts") -> OptimizationReport:
    return OptimizationReport(
        model=model,
        machine="x86_64",
        max_accuracy_drop=0.01,
        calibration_samples=10,
        rows=rows,
        targets=(TargetRow(target="x86-cpu", variant="fp32", why=""),),
    )


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height, https://www.w3.org/TR/png/#11IHDR ."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def texts(made: OptimizationReport, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text of the picture that isn't a number on an axis."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    found: list[str] = []
    save = Figure.savefig

    def saving(figure: Any, *given: Any, **named: Any) -> None:
        found.extend(text.get_text() for text in figure.findobj(Text))
        save(figure, *given, **named)

    monkeypatch.setattr(Figure, "savefig", saving)
    draw(made)
    return found


@pytest.mark.parametrize("count", [1, 3, 20])
def test_any_number_of_candidates_becomes_a_png(count: int, tmp_path: Path) -> None:
    picture = report(*map(row, range(count))).plot(tmp_path / "front.png")
    assert size_of(picture.png) == (1690, 676)
    written = (tmp_path / "front.png").read_bytes()
    assert len(written) == len(picture.png)
    assert size_of(written) == (1690, 676)
    assert picture._repr_png_() is picture.png


def test_the_same_report_gives_the_same_picture() -> None:
    made = report(*map(row, range(5)))
    assert hashlib.sha256(made.plot().png).digest() == hashlib.sha256(made.plot().png).digest()


def test_axes_tell_what_they_measure_and_each_candidate_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = texts(report(*map(row, range(3))), monkeypatch)
    for due in ("accuracy", "p50 of one call on this machine (x86_64), ms", "size, MB"):
        assert due in found
    for outcome in (*OUTCOMES, "Pareto front"):
        assert outcome in found
    assert found.count("candidate-1, 2.5 MB") == 2, "once over latency and once over size"


def test_what_has_no_latency_is_named_instead_of_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts(report(row(0), row(2, p50_ms=None, p99_ms=None)), monkeypatch)
    assert found.count("candidate-2, 1.67 MB") == 1, "over size alone"
    assert any(text.endswith("\nnot measured: candidate-2") for text in found)


def test_without_any_latency_there_is_size_alone() -> None:
    picture = report(*(row(n, p50_ms=None, p99_ms=None) for n in range(3))).plot()
    assert size_of(picture.png) == (845, 676)


def test_without_any_accuracy_none_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts(report(*(row(n, accuracy=None) for n in range(3))), monkeypatch)
    assert found.count("accuracy: not measured") == 2
    assert "accuracy" not in found


def test_a_report_of_candidates_that_could_not_be_made_is_drawn_empty() -> None:
    bare = {"size_bytes": None, "accuracy": None, "p50_ms": None, "outcome": "not made"}
    assert size_of(report(row(0, **bare)).plot().png) == (845, 676)


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    places = {"slow": (4, 0.97), "good": (2, 0.96), "beaten": (3, 0.95), "fast": (1, 0.9)}
    points = [Point(x, y, row(0, variant=name)) for name, (x, y) in places.items()]
    assert [point.row.variant for point in front(points)] == ["fast", "good", "slow"]


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"edgefleet\[plot\]"):
        report(row(0)).plot()


def test_a_notebook_sees_verdicts_in_colours_and_no_markup_of_others() -> None:
    html = report(row(0, why="<script>x</script>"), row(2), model="<b>")._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    shades = {o: html.split(f">{o}</td>")[0].rsplit("background:", 1)[1] for o in OUTCOMES[::2]}
    assert shades["shipped"] != shades["rejected"]


def test_a_saved_report_is_read_whole(tmp_path: Path) -> None:
    made = report(*map(row, range(3)))
    made.save(tmp_path / "report.json")
    assert load_report(tmp_path / "report.json") == made


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"model": "parts"}')
    with pytest.raises(InvalidInputError, match=r"report.json can't be read: Field required"):
        load_report(tmp_path / "report.json")


def test_a_bundle_tells_its_report_without_what_was_measured(
    digits: Digits, tmp_path: Path
) -> None:
    bundle = optimize(
        digits.path,
        targets=["x86-cpu"],
        calibration=digits.calibration,
        evaluate=digits.accuracy,
        candidates=["int8"],
        output=tmp_path / "bundle",
        progress=False,
    )
    read = report_of(BundleLayout(tmp_path / "bundle"))
    assert [r.accuracy for r in read.rows] == [r.accuracy for r in bundle.report.rows]
    assert {r.p50_ms for r in read.rows} == {None}
    assert "not measured" in str(read)
    assert "measured on" not in str(read).splitlines()[0]
    assert size_of(read.plot().png) == (845, 676)


def test_a_bundle_of_a_bare_file_has_no_report(digits: Digits, tmp_path: Path) -> None:
    layout = bundle_from_onnx(digits.path, tmp_path / "bundle", name="digits")
    with pytest.raises(NotFoundError, match="carries no report"):
        report_of(layout)
