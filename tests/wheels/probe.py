"""Runs where one distribution and what it declares are installed: is that enough to use it?

`python -I probe.py DISTRIBUTION` checks that

- the licence, the type marker and the version are there;
- every module imports, but for those that need an extra which is not installed here;
- every entry point loads, and every script answers `--help`;
- without a provider, `edgefleet.connect()` names the cure.

Only the standard library: nothing else is sure to be here.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

# Where the module's name is not the distribution's.
MODULE_OF = {
    "common-expression-language": "cel",
    "grpcio": "grpc",
    "opentelemetry-sdk": "opentelemetry",
    "protobuf": "google",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}


def modules_of_extras(distribution: importlib.metadata.Distribution) -> set[str]:
    """Gives the top-level modules that only an extra of `distribution` brings.

    What such an extra takes of another of our distributions' extras counts, too.
    """
    names = set()
    for requirement in distribution.requires or []:
        if "extra ==" in requirement:
            name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
            names.add(MODULE_OF.get(name, name.replace("-", "_")))
            if name.startswith("edgefleet") and "[" in requirement:
                names |= modules_of_sibling(name)
    return names


def modules_of_sibling(name: str) -> set[str]:
    """Gives what extras of another of our distributions bring; nothing where it isn't here."""
    try:
        return modules_of_extras(importlib.metadata.distribution(name))
    except importlib.metadata.PackageNotFoundError:
        return set()


def missing_module(error: BaseException | None) -> str | None:
    """Gives the top-level name of the module whose absence caused `error`, if that did."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name.partition(".")[0]
        error = error.__cause__ or error.__context__
    return None


def check_imports(package: str, optional: set[str]) -> None:
    """Imports every module of `package`; one may fail only for want of an `optional` module."""
    found = importlib.import_module(package)
    for info in pkgutil.walk_packages(found.__path__, f"{package}.", onerror=lambda _name: None):
        if info.name.endswith(".__main__"):
            continue
        try:
            importlib.import_module(info.name)
        except ImportError as error:
            if missing_module(error) not in optional:
                sys.exit(f"{info.name} needs what its distribution doesn't declare: {error!r}")


def check_connect_names_the_cure() -> None:
    """Without a provider, `edgefleet.connect()` says which one to install."""
    code = "import edgefleet; edgefleet.connect()"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )
    if done.returncode == 0 or "edgefleet[local]" not in done.stderr:
        sys.exit(f"connect() without a provider must name edgefleet[local]; it says {done.stderr}")


def main() -> None:
    """Exits with 1 and one line that says what is wrong."""
    distribution = importlib.metadata.distribution(sys.argv[1])
    name = distribution.metadata["Name"]
    package = name.replace("-", "_")
    files = [str(file) for file in distribution.files or []]
    for wanted in (f"{package}/py.typed", "licenses/LICENSE"):
        if not any(file.endswith(wanted) for file in files):
            sys.exit(f"the wheel of {name} lacks {wanted}")
    strays = {file.partition("/")[0] for file in files} - {package}
    if strays := {s for s in strays if not s.endswith(".dist-info") and s != ".."}:
        sys.exit(f"the wheel of {name} installs more than its package: {sorted(strays)}")

    check_imports(package, modules_of_extras(distribution))
    for point in distribution.entry_points:
        if point.group == "console_scripts":
            script = Path(sys.executable).with_name(point.name)
            done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
            if done.returncode or "usage" not in done.stdout.lower():
                sys.exit(f"{point.name} --help: status {done.returncode}, {done.stderr}")
        point.load()
    if name == "edgefleet" and importlib.util.find_spec("edgefleet_local") is None:
        check_connect_names_the_cure()


if __name__ == "__main__":
    main()
