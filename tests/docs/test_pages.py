"""README and docs keep their word: blocks marked ``<!-- run -->`` run, links lead somewhere.

The blocks of a page run in its order, in one folder that holds the examples: what a reader has who
follows the page.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "providers").glob("*/*.md")),
]
BLOCK = re.compile(r"<!-- run -->\n```(\w+)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in BLOCK.finditer(page.read_text())]


RUN = [page for page in PAGES if blocks(page)]


def test_the_readme_is_run() -> None:
    assert {language for language, _ in blocks(ROOT / "README.md")} == {"python", "sh"}


@pytest.mark.parametrize("page", RUN, ids=[str(page.relative_to(ROOT)) for page in RUN])
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    for example in (ROOT / "examples").glob("*.*"):
        shutil.copy(example, tmp_path)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("EDGEFLEET_")}
    here = {**kept, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    scripts = Path(sys.executable).parent
    for language, text in blocks(page):
        if language == "python":
            subprocess.run([sys.executable, "-c", text], cwd=tmp_path, env=here, check=True)
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            subprocess.run([scripts / program, *arguments], cwd=tmp_path, env=here, check=True)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    missing = [
        target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()
    ]
    assert not missing
