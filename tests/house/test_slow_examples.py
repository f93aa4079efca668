"""A machine that has much to do fails no test that draws its examples."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[2]
FOLDERS = ("tests", "device_runtime/tests", "providers", "examples")


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_slow_draw_is_no_failure_anywhere(ci: str) -> None:
    code = (
        "import conftest\nfrom hypothesis import HealthCheck, settings\n"
        "print(HealthCheck.too_slow in settings().suppress_health_check, settings().deadline)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if k != "CI"}, **({"CI": ci} if ci else {})},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["True", "None"]


def test_who_names_other_checks_names_this_one_too() -> None:
    """What a test gives takes the place of what all of them have."""
    assert HealthCheck.too_slow not in settings(suppress_health_check=[]).suppress_health_check
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("test_*.py")]
    given = [
        (path.name, ast.unparse(keyword.value))
        for path in files
        if "suppress_health_check" in (text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "suppress_health_check" and path != Path(__file__)
    ]
    assert len(given) > 3
    assert not [one for one in given if "too_slow" not in one[1] and one[1] != "list(HealthCheck)"]
