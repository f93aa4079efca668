"""A turn's samples: the same bytes for the same samples, and nothing trained on is compared on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.loop import samples
from edgefleet.loop.sources import Labelled

if TYPE_CHECKING:
    from pathlib import Path


def labelled(count: int, *, first: int = 0, turned: bool = False) -> Labelled:
    order = list(range(first, first + count))
    if turned:
        order.reverse()
    return Labelled(
        version="v",
        reference="m:1",
        total=count,
        ids=[f"sample-{n}" for n in order],
        inputs={"x": np.array([[n, n] for n in order], np.float32)},
        labels=np.array([n % 3 for n in order], np.int64),
    )


def test_the_same_samples_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    samples.write_samples(labelled(50), tmp_path / "a.npz")
    samples.write_samples(labelled(50, turned=True), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_what_is_held_back_is_not_trained_on(tmp_path: Path) -> None:
    samples.write_samples(labelled(200), tmp_path / "all.npz")
    back = samples.divided(tmp_path / "all.npz", 0.25, tmp_path / "data")
    trained = samples.read_arrays(tmp_path / "data" / samples.FILE)
    kept, held = set(trained.inputs["x"][:, 0]), set(back.inputs["x"][:, 0])
    assert not kept & held
    assert len(kept) + len(held) == 200
    assert 25 < len(held) < 75


def test_a_sample_is_held_back_by_every_turn_or_by_none(tmp_path: Path) -> None:
    samples.write_samples(labelled(200), tmp_path / "first.npz")
    samples.write_samples(labelled(200, first=100), tmp_path / "second.npz")
    one = samples.divided(tmp_path / "first.npz", 0.25, tmp_path / "one")
    other = samples.divided(tmp_path / "second.npz", 0.25, tmp_path / "other")
    both = set(range(100, 200))
    assert both & set(one.inputs["x"][:, 0]) == both & set(other.inputs["x"][:, 0])


def test_an_input_called_like_the_labels_is_refused(tmp_path: Path) -> None:
    found = labelled(3)._replace(inputs={"labels": np.zeros((3, 1))})
    with pytest.raises(InvalidInputError, match="an input is called 'labels'"):
        samples.write_samples(found, tmp_path / "all.npz")


@pytest.mark.parametrize(
    "arrays,said",
    [
        ({"x": np.zeros((3, 2))}, "the inputs and 'labels' are needed"),
        ({"labels": np.zeros(3)}, "the inputs and 'labels' are needed"),
        ({"x": np.zeros((3, 2)), "labels": np.zeros(2)}, "has 2 labels for samples {'x': 3}"),
        ({"x": np.zeros((0, 2)), "labels": np.zeros(0)}, "has 0 labels"),
    ],
)
def test_a_test_set_that_does_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    np.savez(tmp_path / "frozen.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError) as refusal:
        samples.read_arrays(tmp_path / "frozen.npz")
    assert said in str(refusal.value)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "frozen.npz", x=np.array([object()], dtype=object), labels=np.zeros(1))
    with pytest.raises(InvalidInputError, match="holds no arrays by name"):
        samples.read_arrays(tmp_path / "frozen.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04broken"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "frozen.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match="holds no arrays by name"):
        samples.read_arrays(tmp_path / "frozen.npz")
