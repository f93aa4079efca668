"""Who did what: a JSON line for each request that changed something, was refused or fetched a blob.

Polls that found nothing new aren't written. Neither are tokens, bodies, headers and queries.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_LOG = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One answered request.

    Attributes:
        time: when it was answered.
        operation: as the OpenAPI document names it.
        device: that asked; None for a stranger.
        address: that it came from.
        method: of HTTP.
        path: without its query.
        status: of the answer.
        code: of the problem, if any.
        ms: milliseconds until the answer.
    """

    time: datetime
    operation: str
    device: str | None
    address: str
    method: str
    path: str
    status: int
    code: str
    ms: float


class _Lines(WatchedFileHandler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # it was moved away, and none can be made there now
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's
        _LOG.exception("the audit log can't be written")


class Audit:
    """Writes entries to a file, or nowhere; a disk that takes none stops no request.

    Args:
        file: grows; one that is moved away, as logrotate does, is begun anew. None writes nothing.

    Raises:
        ConfigurationError: it can't be opened.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._handler: WatchedFileHandler | None = None
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._handler = _Lines(file, encoding="utf-8")
            except OSError as error:
                raise ConfigurationError(
                    f"the audit log {file} can't be written: {error.strerror}",
                    cure="name a file where the gateway's user may write, with --audit-log",
                ) from error

    def write(self, entry: Entry) -> None:
        """Write one line."""
        if self._handler is None:
            return
        facts = entry._asdict() | {"time": entry.time.isoformat(), "ms": round(entry.ms, 2)}
        line = json.dumps({key: value for key, value in facts.items() if value not in (None, "")})
        self._handler.handle(
            logging.LogRecord("audit", logging.INFO, __file__, 0, line, None, None)
        )

    def close(self) -> None:
        """Close the file."""
        if self._handler is not None:
            with suppress(OSError):  # of lines that the disk had no room for
                self._handler.close()
