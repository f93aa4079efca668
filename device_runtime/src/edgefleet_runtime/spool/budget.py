"""How the spool's cap is shared out, so that it holds at every moment. Pure arithmetic.

What lies in the folder, and what bounds it:

- the write-ahead log: SQLite starts it anew when everything in it is in the database, which it
  sees to after any commit that left it `Budget.checkpoint_frames` long. One transaction adds
  `Budget.change_frames` at most, by an estimate that counts every page it may touch.
- segments that are being sent: one batch, whose events take `Budget.batch_bytes` before
  compression, and compression makes them longer by less than the rest of `Budget.outgoing_bytes`.
- files of samples: at most half of the cap, and what they were promised before they come.
- the database: what is left (`max_page_count`).

https://www.sqlite.org/wal.html, https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

from typing import NamedTuple

from edgefleet.protocol.event import MAX_BYTES as MAX_EVENT_BYTES

MIN_CAP = 1 << 20  # bytes; with less, levels and the log would leave hardly any room for events
SMALL_CAP = 16 << 20  # below this, pages are small: each level has one of its own at least
FRAME_HEADER = 24  # bytes; file format, 4.1
LOG_HEADER = 32
ROW_BYTES = 24  # about what a row takes beside its event
_MOST_LOG = 16 << 20
_MOST_OUTGOING = 8 << 20
_MOST_BATCH = 4 << 20
_MOST_TALLIES_A_DAY = 3072  # an account of them is one event
ACCOUNT_BYTES = 512  # of an account beside its tallies
ACCOUNT_BYTES_A_TALLY = 160  # an upper bound, with a name of 64 characters
_TALLY_ROW_BYTES = 64


class Budget(NamedTuple):
    """Shares of a cap, in bytes unless said otherwise.

    Attributes:
        cap: of everything.
        page: of the database.
        log_bytes: the write-ahead log.
        change_frames: pages that one transaction may write.
        checkpoint_frames: pages in the log from where on it is emptied.
        outgoing_bytes: segments being sent.
        batch_bytes: events of one batch before compression.
        event_bytes: one encoded event.
        account_bytes: accounts that wait at one time, before the last one is made.
        tallies_a_day: how many tallies a day may have.
        tallies: how many there may be before days that are settled go.
    """

    cap: int
    page: int
    log_bytes: int
    change_frames: int
    checkpoint_frames: int
    outgoing_bytes: int
    batch_bytes: int
    event_bytes: int
    account_bytes: int
    tallies_a_day: int
    tallies: int

    def pages(self, other_bytes: int) -> int:
        """Pages that the database may have while other files take so many bytes."""
        left = self.cap - self.log_bytes - self.outgoing_bytes - other_bytes
        return max(0, left) // self.page


def share_out(cap: int, page: int | None = None) -> Budget:
    """The shares of a cap, which counts as `MIN_CAP` at least.

    Args:
        cap: in bytes.
        page: of the database that is there; None for a new one.
    """
    cap = max(cap, MIN_CAP)
    page = page or (1024 if cap < SMALL_CAP else 4096)
    log = min(cap // 8, _MOST_LOG)
    outgoing = min(cap // 8, _MOST_OUTGOING)
    frames = (log - LOG_HEADER) // (page + FRAME_HEADER)
    batch = min(_MOST_BATCH, log // 4, outgoing // 2)
    event = min(MAX_EVENT_BYTES, batch // 2)
    return Budget(
        cap=cap,
        page=page,
        log_bytes=log,
        change_frames=frames // 2,
        checkpoint_frames=frames // 2,
        outgoing_bytes=outgoing,
        batch_bytes=batch,
        event_bytes=event,
        account_bytes=event // 2,
        tallies_a_day=min(_MOST_TALLIES_A_DAY, event // 2 // ACCOUNT_BYTES_A_TALLY),
        tallies=cap // 32 // _TALLY_ROW_BYTES,
    )
