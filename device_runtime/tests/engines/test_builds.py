from __future__ import annotations

import pytest

from edgefleet.errors import ConfigurationError
from edgefleet_runtime.engines.builds import check_one_build, installed_builds


def test_builds_that_overwrite_each_other_are_refused_with_the_way_out() -> None:
    both = {"onnxruntime", "onnxruntime-gpu"}
    with pytest.raises(ConfigurationError, match="overwrite") as refused:
        check_one_build(both.__contains__)
    assert "pip uninstall onnxruntime onnxruntime-gpu" in str(refused.value)


@pytest.mark.parametrize("builds", [(), ("onnxruntime",), ("onnxruntime-gpu",)])
def test_one_build_or_one_of_ones_own_is_fine(builds: tuple[str, ...]) -> None:
    check_one_build(builds.__contains__)


def test_this_environment_has_the_cpu_build_alone() -> None:
    assert installed_builds() == ("onnxruntime",)
