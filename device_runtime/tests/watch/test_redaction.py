"""What can't be redacted as the policy says isn't stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.bundle import TensorSpec
from edgefleet.protocol.event import EventData, HealthEvent
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.redaction import Redactor, blur, noise, pixelate

if TYPE_CHECKING:
    from edgefleet_runtime.redaction import Hook

IMAGE = np.random.default_rng(3).integers(0, 256, (1, 3, 64, 48), np.uint8)


def redact(
    *hooks: str, image: NDArray[Any] = IMAGE, own: dict[str, Hook] | None = None, **more: Any
) -> tuple[NDArray[Any] | None, tuple[str, ...], list[EventData]]:
    """An input of ``cam`` through hooks: what may be stored, what changed it, what was told."""
    policy = TelemetryPolicy(**{"inputs": ("cam/*",), "redact": {"cam/image": hooks}, **more})
    told: list[EventData] = []
    redactor = Redactor(told.append, own)
    kept, changed = redactor.redact(policy, "cam", {"image": image}, {})
    assert redactor.withheld == len(told)
    return kept.get("image"), changed.get("image", ()), told


@pytest.mark.parametrize("hook", ["blur", "pixelate", "noise", "pixelate:8", "blur:9", "noise:2"])
def test_a_hook_changes_what_is_stored_and_keeps_its_form(hook: str) -> None:
    before = IMAGE.copy()
    kept, changed, told = redact(hook)
    assert kept is not None
    assert (kept.shape, kept.dtype, changed, told) == (IMAGE.shape, IMAGE.dtype, (hook,), [])
    assert (kept != IMAGE).mean() > 0.9
    assert np.array_equal(IMAGE, before), "what the model was given is never written to"


def test_hooks_run_in_the_policys_order_over_all_patterns_that_fit() -> None:
    calls: list[str] = []

    def told(name: str) -> Hook:
        def hook(array: NDArray[Any], _spec: object, _number: float | None) -> NDArray[Any]:
            calls.append(name)
            return array + 1

        return hook

    policy = {"cam/image": ("a", "b"), "other/*": ("no",), "cam/*": ("c",)}
    kept, changed, _ = redact(own={name: told(name) for name in "abc"}, redact=policy)
    assert calls == ["a", "b", "c"]
    assert changed == ("a", "b", "c")
    assert kept is not None
    assert np.array_equal(kept, IMAGE + 3)


def test_drop_stores_nothing_and_is_no_failure() -> None:
    assert redact("drop") == (None, (), [])


def test_what_the_policy_does_not_name_is_not_stored_whatever_hooks_say() -> None:
    assert redact("blur", inputs=("cam/other",)) == (None, (), [])


def test_without_hooks_it_is_stored_as_it_is() -> None:
    kept, changed, _ = redact(redact={})
    assert kept is IMAGE
    assert changed == ()


def _raises(_array: NDArray[Any], _spec: object, _number: float | None) -> NDArray[Any]:
    raise RuntimeError("secret")


def _writes(array: NDArray[Any], _spec: object, _number: float | None) -> NDArray[Any]:
    array[:] = 0
    return array


OWN: dict[str, Hook] = {
    "raises": _raises,
    "writes": _writes,
    "text": lambda *_: "text",  # type: ignore[dict-item]
    "shorter": lambda array, _spec, _number: array[:, :1],
    "wider": lambda array, _spec, _number: array.astype(np.float64),
}


@pytest.mark.parametrize("hook", [*OWN, "unknown", "blur:x", "blur:1", "pixelate:0"])
def test_a_hook_that_fails_or_is_unknown_has_the_input_not_stored(hook: str) -> None:
    kept, _, told = redact("pixelate", hook, own=OWN)
    assert kept is None
    (event,) = told
    assert isinstance(event, HealthEvent)
    assert event.what == "redaction-failed"
    assert "cam/image" in event.message
    assert "secret" not in event.message, "what a hook says may hold what it was given"


def test_it_is_told_once_a_release_and_counted_each_time() -> None:
    first = TelemetryPolicy(inputs=("*/*",), redact={"*/*": ("no",)}, segment_max_bytes=1)
    told: list[EventData] = []
    redactor = Redactor(told.append)
    for _ in range(3):
        assert redactor.redact(first, "cam", {"image": IMAGE}, {}) == ({}, {})
    assert (redactor.withheld, len(told)) == (3, 1)
    second = TelemetryPolicy(inputs=("*/*",), redact={"*/*": ("no",)})
    redactor.redact(second, "cam", {"image": IMAGE}, {})
    assert (redactor.withheld, len(told)) == (4, 2)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 64), np.float32),
        np.zeros(64, np.float32),
        np.array([[b"a", b"b"]], object),
        np.zeros((0, 8, 8), np.uint8),
        np.zeros((1, 8, 1, 1), np.uint8),
    ],
)
@pytest.mark.parametrize("hook", ["blur", "pixelate"])
def test_what_is_no_picture_is_not_stored_half_redacted(array: NDArray[Any], hook: str) -> None:
    assert redact(hook, image=array)[0] is None


@pytest.mark.parametrize(
    "shape, interface, axes",
    [
        ((2, 3, 32, 24), None, (2, 3)),
        ((2, 32, 24, 3), None, (1, 2)),
        ((32, 24, 4), None, (0, 1)),
        ((2, 32, 24), None, (1, 2)),
        ((2, 1, 32, 24), None, (2, 3)),
        ((2, 3, 32, 3), (-1, 3, -1, -1), (2, 3)),
        ((2, 3, 24, 3), (-1, -1, -1, 3), (1, 2)),
        ((32, 24), (32, 24), (0, 1)),
    ],
)
def test_rows_and_columns_are_found_in_any_layout(
    shape: tuple[int, ...], interface: tuple[int, ...] | None, axes: tuple[int, int]
) -> None:
    array = np.random.default_rng(1).random(shape)
    spec = interface and TensorSpec(name="image", datatype="FP64", shape=interface)
    result = pixelate(array, spec or None, 1024)
    flat = np.broadcast_to(array.mean(axis=axes, keepdims=True), shape)
    assert np.allclose(result, flat), "each picture and channel becomes one square of its own mean"


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=5, max_side=20)),
    st.integers(2, 8),
)
def test_pixelating_leaves_one_value_a_square(image: NDArray[Any], side: int) -> None:
    result = pixelate(image[None], None, side)[0]
    if image.shape[-1] in {1, 3, 4}:
        return
    for row in range(0, image.shape[1], side):
        for column in range(0, image.shape[2], side):
            square = result[:, row : row + side, column : column + side]
            assert all(len(np.unique(part)) == 1 for part in square)


@given(hnp.arrays(np.float32, (2, 9, 7), elements=st.floats(-1e3, 1e3, width=32)))
def test_blurring_keeps_within_what_was_there_and_leaves_flat_parts_alone(
    image: NDArray[Any],
) -> None:
    result = blur(image, None, 3)
    assert result.min() >= image.min() - 1e-2
    assert result.max() <= image.max() + 1e-2
    flat = np.full_like(image, 7.0)
    assert np.allclose(blur(flat, None, 3), flat)


def test_noise_is_as_loud_as_the_numbers_and_never_the_same() -> None:
    values = np.random.default_rng(2).normal(5.0, 2.0, (4, 500)).astype(np.float32)
    one, other = noise(values, None, None), noise(values, None, None)
    assert not np.array_equal(one, other)
    assert float((one - values).std()) == pytest.approx(2.0, rel=0.2)


def test_noise_refuses_what_is_no_number() -> None:
    with pytest.raises(InvalidInputError):
        noise(np.array([[b"name"]], object), None, None)
