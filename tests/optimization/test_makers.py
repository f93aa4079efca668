"""What every tool for fp32 models refuses to start from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.optimization.makers import MAX_BYTES, NotMade
from tests.optimization import models
from tests.optimization.making import make, source_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["int8", "int8-dynamic", "fp16", "channels-25", "weights-50"])
@pytest.mark.parametrize(
    "facts, said",
    [
        ({"precision": "fp16"}, "the model given is fp16: give the fp32 one"),
        ({"size_bytes": MAX_BYTES + 1}, "1800000001 bytes are more than one protobuf holds"),
    ],
    ids=["precision", "size"],
)
def test_a_model_that_no_tool_can_start_from_says_so(
    name: str, facts: dict[str, Any], said: str, tmp_path: Path
) -> None:
    source = source_of(models.linear(), tmp_path, models.inputs_for())
    unfit = dataclasses.replace(source.file, **facts)
    with pytest.raises(NotMade, match=said):
        make(name, dataclasses.replace(source, file=unfit), tmp_path)
