"""The command line: a thin skin over `edgefleet.Fleet`. Parse, call, print.

``app`` holds the table of commands and runs them, ``errors`` the exit codes, ``options`` and
``output`` what commands share. One file a command group; each is imported when it is asked for, and
imports what is heavy inside its functions: ``edgefleet --help`` is held to 250 ms.
"""

from edgefleet.cli.app import main

__all__ = ["main"]
