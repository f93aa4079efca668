"""The process that builds one engine: told what on standard input, ends with the runtime.

It says ``progress SHARE`` and ``failed REASON`` on standard output; all else that it or a library
prints goes to standard error.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TextIO

from edgefleet.errors import EdgeFleetError, UnsupportedError
from edgefleet.protocol.typed import decoder
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.build import Request
from edgefleet_runtime.engines.building import CanBuild
from edgefleet_runtime.engines.discovery import engine_for
from edgefleet_runtime.parent import end_with_parent


def main() -> int:
    """Build what standard input asks for; returns the exit code."""
    with os.fdopen(os.dup(1), "w", buffering=1) as own:
        os.dup2(2, 1)
        line = sys.stdin.buffer.readline()
        threading.Thread(target=end_with_parent, daemon=True).start()
        try:
            _build(decoder(Request).decode(line), own)
        except Exception as error:  # noqa: BLE001 - engines raise anything
            reason = error.message if isinstance(error, EdgeFleetError) else repr(error)
            own.write(f"failed {' '.join(reason.split())}\n")
            return 1
        return 0


def _build(request: Request, own: TextIO) -> None:
    engine = engine_for(request.format)
    if not isinstance(engine, CanBuild):
        raise UnsupportedError(f"{type(engine).__name__} builds no engines")
    options = EngineOptions(
        providers=request.providers, threads=request.threads, engine_cache=Path(request.cache)
    )
    engine.build(Path(request.entry), options, lambda share: own.write(f"progress {share}\n"))


if __name__ == "__main__":
    sys.exit(main())
