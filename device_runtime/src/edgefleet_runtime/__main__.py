"""``python -m edgefleet_runtime``: the same as ``edgefleet-runtime``."""

from __future__ import annotations

import sys

from edgefleet_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
