"""A how-to page on training, as its reader has it: its files on disk, data, and a profile.

Pages mark a file by ``<!-- file: NAME -->`` on the line before its Python block.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROFILE = "plant-a"
_FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def lay_out(page: Path, folder: Path, *, provider: str, settings: Mapping[str, Any]) -> None:
    """Write what a reader of a page on training has into a folder.

    Args:
        page: the Markdown file.
        folder: an existing one; it gets the page's files, ``points/points.npz`` (``x``
            ``float32[200, 2]``, ``y`` ``float32[200, 1]``) and ``edgefleet.toml``.
        provider: of the profile `PROFILE`.
        settings: the provider's table there; JSON values, no None.

    Raises:
        ValueError: the page has no file.
    """
    import numpy as np

    files = _FILE.findall(page.read_text(encoding="utf-8"))
    if not files:
        raise ValueError(f"{page} has no file")
    for name, text in files:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "points").mkdir()
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    y = x @ np.array([[1], [-2]], dtype=np.float32)
    np.savez(folder / "points" / "points.npz", x=x, y=y)
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    head = f'[profiles.{PROFILE}]\nprovider = "{provider}"\n[profiles.{PROFILE}.{provider}]\n'
    (folder / "edgefleet.toml").write_text(f"{head}{table}\n", encoding="utf-8")


def printed(script: str, folder: Path) -> list[str]:
    """The lines that a script of the page prints, run there with the reader's profile.

    Raises:
        AssertionError: it failed; the message is what it wrote to standard error.
    """
    here = {key: value for key, value in os.environ.items() if not key.startswith("EDGEFLEET_")}
    done = subprocess.run(
        [sys.executable, script], cwd=folder, env=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
