"""Small wheels that pip takes for real ones."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MACHINES = ("x86_64", "aarch64")
PROGRAM = """\
import json, pathlib, sys

def main():
    root = pathlib.Path(sys.argv[sys.argv.index("--root") + 1]) if "--root" in sys.argv else None
    if sys.argv[1] == "enroll":
        (root / "identity").mkdir()
        came = {"device": "cam-07", "token": sys.stdin.read(), "arguments": sys.argv[2:]}
        (root / "identity" / "identity.json").write_text(json.dumps(came))
    else:
        print("edgefleet-runtime 0.1.0")
"""


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    tag: str = "py3-none-any",
    needs: Sequence[str] = (),
    extras: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    scripts: Sequence[str] = (),
) -> Path:
    """A wheel with these needs and files."""
    module = name.replace("-", "_")
    about = f"{module}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {need}" for need in needs]
    content = {
        **(files or {f"{module}/__init__.py": ""}),
        f"{about}/METADATA": "\n".join(lines) + "\n",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if scripts:
        content[f"{about}/entry_points.txt"] = "[console_scripts]\n" + "\n".join(scripts) + "\n"
    record = f"{about}/RECORD"
    content[record] = "".join(
        f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in content.items()
    ) + (f"{record},,\n")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for inner, text in content.items():
            packed.writestr(zipfile.ZipInfo(inner), text)
    return path


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def runtime_wheels(folder: Path) -> Path:
    """All that a small runtime needs: parts for two machines and two Pythons, and markers."""
    wheel(
        folder,
        "edgefleet-runtime",
        "0.1.0",
        needs=[
            "edgefleet>=0.1",
            "fast>=1; sys_platform != 'win32'",
            "zstd-backport; python_version < '3.12'",
            "only-intel; platform_machine == 'x86_64'",
            "only-arm; platform_machine == 'aarch64'",
            "never; sys_platform == 'win32'",
            "engine; extra == 'cpu'",
        ],
        extras=["cpu"],
        files={
            "edgefleet_runtime/__init__.py": "",
            "edgefleet_runtime/__main__.py": "from edgefleet_runtime.cli import main\nmain()\n",
            "edgefleet_runtime/cli.py": PROGRAM,
        },
        scripts=["edgefleet-runtime = edgefleet_runtime.cli:main"],
    )
    wheel(folder, "edgefleet", "0.1.0", needs=["fast"])
    for name in ("zstd-backport", "only-intel", "only-arm", "unneeded", "pip"):
        wheel(folder, name)
    for machine in MACHINES:
        for python in ("cp311", "cp312", "cp313"):
            wheel(folder, "fast", "1.2", tag=f"{python}-{python}-manylinux_2_28_{machine}")
        wheel(folder, "fast", "1.2", tag=f"cp311-cp311-musllinux_1_2_{machine}")
        wheel(folder, "engine", "3.0", tag=f"cp39-abi3-manylinux_2_17_{machine}")
    return folder
