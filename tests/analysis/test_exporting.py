"""Datasets in other people's formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from edgefleet.analysis.exporting import is_like_image
from edgefleet.errors import InvalidInputError
from edgefleet.protocol.digest import hex_of
from tests.analysis.field import picture

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.analysis.dataset import Dataset
    from edgefleet.fleet import Fleet
    from tests.analysis.field import Field


@pytest.fixture
def dataset(fleet: Fleet, field: Field, tmp_path: Path) -> Dataset:
    field.segment("cam-1", [field.capture("cam-1", n, top=n % 2) for n in range(4)])
    return fleet.dataset("digits", to=tmp_path / "set")


def test_pictures_lie_in_a_folder_a_class(dataset: Dataset, tmp_path: Path) -> None:
    assert dataset.export_images(tmp_path / "out") == {"0": 2, "1": 2}
    for row in dataset:
        with Image.open(tmp_path / "out" / row.predicted / f"{hex_of(row.sample)}.png") as image:
            seen = np.asarray(image)
        wanted = (dataset.array(row)[0] * 255).round().astype(np.uint8)
        assert np.array_equal(seen, wanted)


def test_pictures_without_a_label_are_unknown(dataset: Dataset, tmp_path: Path) -> None:
    assert dataset.export_images(tmp_path / "out", by="label") == {"unknown": 4}
    with pytest.raises(InvalidInputError, match="to sort by"):
        dataset.export_images(tmp_path / "out", by="device")  # type: ignore[arg-type]


def test_numbers_of_another_range_are_stretched_over_the_whole_dataset(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    dim, bright = (np.full((1, 4, 4), value, dtype=np.float32) for value in (4.0, 16.0))
    field.segment("cam-1", [field.captured("cam-1", 0, dim), field.captured("cam-1", 1, bright)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    dataset.export_images(tmp_path / "out")
    greys = []
    for row in dataset:
        (path,) = (tmp_path / "out").rglob(f"{hex_of(row.sample)}.png")
        with Image.open(path) as image:
            greys.append(int(np.asarray(image)[0, 0]))
    assert greys == [64, 255]


def test_an_image_laid_flat_needs_its_shape(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    flat = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 64)
    field.segment("cam-1", [field.captured("cam-1", 0, flat)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    with pytest.raises(InvalidInputError, match="like no image"):
        dataset.export_images(tmp_path / "out")
    assert dataset.export_images(tmp_path / "out", shape=(8, 8)) == {"3": 1}
    with pytest.raises(InvalidInputError, match="like no image"):
        dataset.export_images(tmp_path / "out", shape=(9, 9))


@pytest.mark.parametrize(
    "shape, like",
    [
        ((1, 8, 8), True),
        ((1, 1, 8, 8), True),
        ((1, 3, 8, 9), True),
        ((8, 9, 3), True),
        ((8, 9, 4), True),
        ((1, 64), False),
        ((64,), False),
        ((5, 8, 9), False),
        ((2, 3, 8, 9), False),
    ],
)
def test_what_is_like_an_image(shape: tuple[int, ...], *, like: bool) -> None:
    assert is_like_image(np.zeros(shape, dtype=np.float32)) is like


def test_colours_may_come_first_or_last(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    last = np.random.default_rng(1).integers(0, 255, (1, 5, 6, 3), dtype=np.uint8)
    first = np.moveaxis(last, 3, 1)
    field.segment("cam-1", [field.captured("cam-1", 0, last), field.captured("cam-1", 1, first)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    dataset.export_images(tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.png"):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), last[0])


def test_a_class_of_any_name_has_a_folder_of_its_own(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    names = ["../up", "..", ".hid", "a/b", "two words", "über", "con:"]
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(len(names))])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    import msgspec

    named = [
        msgspec.structs.replace(row, label=name) for row, name in zip(dataset, names, strict=True)
    ]
    counts = dataset.part(named).export_images(tmp_path / "deep" / "out")
    assert len(counts) == len(names)
    assert {path.name for path in (tmp_path / "deep" / "out").iterdir()} == counts.keys()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_one_parquet_file_holds_everything(dataset: Dataset, tmp_path: Path) -> None:
    path = dataset.export_parquet(tmp_path / "all.parquet")
    table = pq.read_table(path)
    assert table.column("predicted").to_pylist() == ["0", "1", "0", "1"]
    assert table.column("shape.x").to_pylist() == [[1, 8, 8]] * 4
    third = np.array(table.column("input.x")[2].as_py(), dtype=np.float32)
    assert np.array_equal(third, picture(2).ravel())


def test_inputs_of_several_types_are_no_one_column(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    arrays = [np.zeros((1, 4, 4), dtype=kind) for kind in (np.float32, np.uint8)]
    field.segment("cam-1", [field.captured("cam-1", n, array) for n, array in enumerate(arrays)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    with pytest.raises(InvalidInputError, match="several types"):
        dataset.export_parquet(tmp_path / "all.parquet")
    assert not (tmp_path / "all.parquet").exists()
