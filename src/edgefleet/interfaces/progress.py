"""Progress where a person looks: a terminal or a notebook; silence everywhere else."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn
    from rich.status import Status as RichStatus


def someone_looks() -> bool:
    """Whether standard error is a terminal or this is a notebook, and there is what shows it."""
    if find_spec("rich") is None:  # the extra [cli]
        return False
    if "ipykernel" in sys.modules:  # which others load, too
        from rich.console import Console  # noqa: PLC0415 - only where it may be one

        if Console(stderr=True).is_jupyter:
            return True
    return sys.stderr is not None and sys.stderr.isatty()


class Status:
    """One changing line while something of unknown length goes on."""

    def __init__(self, text: str, *, enabled: bool = True) -> None:
        self._text = text
        self._enabled = enabled and someone_looks()
        self._status: RichStatus | None = None

    def __enter__(self) -> Self:
        if self._enabled:
            from rich.console import Console  # noqa: PLC0415 - only where it is shown

            self._status = Console(stderr=True).status(self._text)
            self._status.start()
        return self

    @property
    def shown(self) -> bool:
        """Whether anybody sees it."""
        return self._status is not None

    def update(self, text: str) -> None:
        """Show another text."""
        if self._status is not None and text != self._text:
            self._text = text
            self._status.update(text.replace("[", "\\["))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()


class _Bar(ABC):
    """A bar over a known total."""

    def __init__(self, text: str, total: int, *, enabled: bool = True) -> None:
        self._text, self._total = text, total
        self._enabled = enabled and someone_looks()
        self._progress: RichProgress | None = None

    @abstractmethod
    def _columns(self) -> tuple[ProgressColumn, ...]: ...

    def __enter__(self) -> Self:
        if self._enabled:
            from rich.console import Console  # noqa: PLC0415 - only where it is shown
            from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                *self._columns(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
            self._progress.add_task(self._text, total=self._total)
        return self

    def update(self, text: str) -> None:
        """Show another text."""
        if self._progress is not None:
            self._progress.update(
                self._progress.task_ids[0], description=text.replace("[", "\\["), refresh=True
            )

    def _advance(self, count: int) -> None:
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0], count)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


class Bytes(_Bar):
    """A bar over a known number of bytes; call it with the bytes of each step."""

    def _columns(self) -> tuple[ProgressColumn, ...]:
        from rich.progress import (  # noqa: PLC0415
            DownloadColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        return (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())

    def __call__(self, count: int) -> None:
        """Advance by so many bytes."""
        self._advance(count)


class Steps(_Bar):
    """A bar over a known number of steps, with the time since the first; call it after each."""

    def _columns(self) -> tuple[ProgressColumn, ...]:
        from rich.progress import MofNCompleteColumn, TimeElapsedColumn  # noqa: PLC0415

        return (MofNCompleteColumn(), TimeElapsedColumn())

    def __call__(self) -> None:
        """Advance by one step."""
        self._advance(1)
