"""The snippets of docs/how-to/talk-to-a-device.md run, against a device that listens elsewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests import onnx_models
from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serving import WAIT_S, served, table_of
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "talk-to-a-device.md"
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Puts the addresses of the servers that run in place of those in the text."""
    path = onnx_models.mlp(tmp_path_factory.mktemp("m") / "m.onnx")
    model = OnnxRuntimeEngine().load(path, EngineOptions(threads=1))
    with serving_grpc(table_of(served(model, "digits"))) as (rest, grpc):
        host, port = rest.address
        yield lambda text: text.replace("127.0.0.1:8000", f"{host}:{port}").replace(
            "127.0.0.1:8001", grpc
        )


@pytest.mark.parametrize("code", [code for kind, code in BLOCKS if kind == "python"])
def test_python_prints_the_models_answer(
    code: str, here: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    exec(here(code), {})
    assert "[[3. 4.]]" in capsys.readouterr().out


def test_curl_gets_the_models_answer(here: Callable[[str], str]) -> None:
    (code,) = [code for kind, code in BLOCKS if kind == "sh" and "curl" in code]
    ran = subprocess.run(
        ["sh", "-c", here(code)], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    if ran.returncode == 127:
        pytest.skip("no curl here")
    assert '"data":[3.0,4.0]' in ran.stdout.replace(" ", "")


def test_each_snippet_is_known() -> None:
    assert [kind for kind, _ in BLOCKS] == ["sh", "python", "python", "sh", "sh"]
