"""A port that is told to others before anybody listens there, or while nobody does."""

from __future__ import annotations

import socket
import sys


class HeldPort:
    """A port of this machine's own address that nobody else is given until it is closed.

    On Linux a server listens there all the same, if it sets SO_REUSEADDR, as asyncio, Go and we do.
    Elsewhere it couldn't, so there the port is merely one that nobody had.

    Args:
        number: the port; 0 for any.

    Attributes:
        number: the port.
        taken: whether somebody has it already; then it isn't held.
    """

    def __init__(self, number: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.taken = False
        try:
            self._socket.bind(("127.0.0.1", number))
        except OSError:
            self.close()
            if not number:
                raise
            self.taken = True
        else:
            number = self._socket.getsockname()[1]
            if sys.platform != "linux":
                self.close()
        self.number: int = number

    def close(self) -> None:
        """Give it away; may be called twice."""
        self._socket.close()
