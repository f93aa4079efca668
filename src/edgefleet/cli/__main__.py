"""``python -m edgefleet.cli``: the same as the installed command."""

import sys

from edgefleet.cli.app import main

sys.exit(main())
