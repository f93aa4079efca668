"""The process that builds one engine: told what on standard input, ends with the runtime.

It says ``progress SHARE`` and ``failed REASON`` on standard output; all else that it or a library
prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

import msgspec

from edgefleet.errors import EdgeFleetError, UnsupportedError
from edgefleet_runtime.engines.build import Request
from edgefleet_runtime.engines.building import CanBuild
from edgefleet_runtime.engines.discovery import engine_for


def main() -> int:
    """Build what standard input asks for; returns the exit code."""
    with os.fdopen(os.dup(1), "w", buffering=1) as own:
        os.dup2(2, 1)
        line = sys.stdin.buffer.readline()
        threading.Thread(target=_end_with_runtime, daemon=True).start()
        try:
            request = msgspec.json.decode(line, type=Request, dec_hook=lambda _, value: Path(value))
            engine = engine_for(request.format)
            if not isinstance(engine, CanBuild):
                raise UnsupportedError(f"{type(engine).__name__} builds no engines")
            engine.build(
                Path(request.entry), request.options, lambda share: own.write(f"progress {share}\n")
            )
        except EdgeFleetError as error:
            own.write(f"failed {' '.join(error.message.split())}\n")
            return 1
        return 0


def _end_with_runtime() -> None:
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
