"""Writes the golden files anew. They are the promise of compatibility: read this first.

`python -m tests.contract.make_golden` adds the files that are missing. A file that is there already
is what devices in the field and bundles on disk hold: it is changed only with `--change`, and that
is right only before the first release, or where no reader could tell. A new field gets a new file.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import encode
from edgefleet.protocol.segment import write_segment
from tests.contract import future, samples

GOLDEN = Path(__file__).parent / "golden"
DIGESTS = "digests.json"


def made() -> dict[str, bytes]:
    """Gives every golden file's content, by its path below the folder."""
    files = {name: encode(document) for name, document in samples.DOCUMENTS.items()}
    with tempfile.TemporaryDirectory() as scratch:
        bundle = samples.write_bundle(Path(scratch, "bundle"))
        descriptor = bundle.variant("fp32").manifest
        files["manifest.json"] = bundle.read(descriptor, descriptor.size)
        files["index.json"] = (bundle.root / "index.json").read_bytes()
        for path in bundle.root.rglob("*"):
            if path.is_file():
                files[f"bundle/{path.relative_to(bundle.root).as_posix()}"] = path.read_bytes()
        segment = Path(scratch, "segment")
        with segment.open("wb") as to:
            write_segment(samples.EVENTS.values(), to)
        files["segment.ndjson.zst"] = segment.read_bytes()
    files["segment.ndjson"] = b"".join(encode(e) + b"\n" for e in samples.EVENTS.values())
    for name in future.READERS:
        for kind, change in (("future", future.accepted), ("future-requires", future.refused)):
            plain = change(name, json.loads(files[name]))
            files[f"{kind}-{name}"] = json.dumps(plain, indent=1).encode() + b"\n"
    digests = {
        name: digest_of(data)
        for name, data in sorted(files.items())
        if not name.startswith("bundle/blobs/") and not name.endswith(".zst")
    }
    files[DIGESTS] = json.dumps(digests, indent=1).encode() + b"\n"
    return files


def main() -> None:
    """Writes what is missing; with `--change` also what differs."""
    change = "--change" in sys.argv[1:]
    files = made()
    if change:
        shutil.rmtree(GOLDEN, ignore_errors=True)
    for name, data in files.items():
        path = GOLDEN / name
        if not path.exists() or name == DIGESTS:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            sys.stdout.write(f"written: {name}\n")
        elif not name.endswith(".zst") and path.read_bytes() != data:
            sys.exit(f"{name} differs from what this tree writes; see the top of {__file__}")


if __name__ == "__main__":
    main()
