"""The page "Move from Triton" keeps its word: its server runs, its snippets and tables hold."""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.onnx_models import mlp
from device_runtime.tests.standalone.test_serve import serving
from edgefleet.errors import UnsupportedError
from edgefleet_runtime.cli import main
from edgefleet_runtime.serve.messages import MIB, Limits
from edgefleet_runtime.standalone.control import MAX_BYTES, MAX_FILES
from edgefleet_runtime.standalone.model_config import RepositoryModelConfig, read_model_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "migrate-from-triton.md").read_text(
    encoding="utf-8"
)
START = re.search(r"<!-- start -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
ASKED = re.findall(r"<!-- ask -->\n```python\n(.*?)```", PAGE, re.DOTALL)
ROWS = re.findall(r"^\| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")


def table(first: str) -> list[tuple[str, str]]:
    """The rows of the table whose first column has that title."""
    titles = [row[0] for row in ROWS]
    rows = []
    for row in ROWS[titles.index(first) + 1 :]:
        if row[0] in {"field", "refused", "`tritonserver`"}:
            break
        if not row[0].startswith("---"):
            rows.append(row)
    assert rows
    return rows


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """The server of the page, on other addresses; puts these into a snippet."""
    assert START is not None
    monkeypatch.chdir(tmp_path)
    version = tmp_path / "models" / "digits" / "1"
    version.mkdir(parents=True)
    mlp(version / "model.onnx")
    with tempfile.TemporaryDirectory(prefix="ef") as folder:
        command = START[1].replace("127.0.0.1:8000", "127.0.0.1:0")
        command = command.replace("127.0.0.1:8001", f"unix:{folder}/s")
        program, verb, *arguments = shlex.split(command)
        assert (program, verb) == ("edgefleet-runtime", "serve")
        with serving(*arguments) as (endpoint, _):
            address = endpoint.partition("://")[2]
            yield lambda text: text.replace("127.0.0.1:8000", address).replace(
                "127.0.0.1:8001", f"unix:{folder}/s"
            )


def test_the_snippets_print_what_the_server_says(
    here: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked, controlled = ASKED
    exec(here(asked), {})
    assert "[[3. 4.]]" in capsys.readouterr().out
    exec(here(controlled), {})
    assert capsys.readouterr().out.split() == ["digits", "1", "READY"]


def test_each_option_of_the_right_column_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    named = {
        option
        for _, ours in table("`tritonserver`")
        for code in CODE.findall(ours)
        for option in re.findall(r"--[a-z][a-z-]+", code)
    }
    assert len(named) > 8
    assert named <= known


def configs(cell: str) -> list[str]:
    """What a cell names, as a config.pbtxt: a field, a value of ``backend`` or a whole text."""
    found = []
    for code in CODE.findall(cell):
        if code.startswith('"'):
            found.append(f"backend: {code}")
        elif code.isidentifier() and code != "onnxruntime":
            found.append(f"{code} {{ }}")
        elif code != "onnxruntime":
            found.append(code)
    return found


@pytest.mark.parametrize(
    "text", [text for refused, _ in table("refused") for text in configs(refused)]
)
def test_what_is_said_to_be_refused_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedError):
        read_model_config(text.encode(), name="m")


@pytest.mark.parametrize(
    "text",
    [text for field, here in table("field") if "answers are" in here for text in configs(field)],
)
def test_what_is_said_to_do_nothing_does_nothing(text: str) -> None:
    assert read_model_config(text.encode(), name="m") == RepositoryModelConfig()


def test_the_limits_are_those_of_the_code() -> None:
    assert f"{MAX_FILES} files a request" in PAGE
    assert f"{MAX_BYTES // MIB} MiB of all models" in PAGE
    assert f"a body of {Limits().max_body_bytes // MIB} MiB" in PAGE
