"""Figures of variants on this machine: one small document, written durably.

Rules kept here:

- A figure counts on the machine that it was measured on: CPU, GPU, driver and libraries, see
  `fingerprint`. Figures of another stay, for a library may be put back, until newer ones push them
  out: at most `MAX_RECORDS` are kept.
- A try is noted before anything of a variant is loaded, because loading may kill the process, and
  the note goes when the variant proved itself. `MAX_TRIES` notes and it is not tried again here.
- A document that can't be read is no loss: what is measured is measured again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from edgefleet.errors import DocumentError
from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document, decode, encode
from edgefleet_runtime.faults import point
from edgefleet_runtime.store.durable import write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_log = logging.getLogger(__name__)

FILE = "figures.json"
MAX_RECORDS = 256
MAX_TRIES = 3
_LIBRARIES = ("onnxruntime", "tensorrt", "openvino", "ai_edge_litert", "tflite")
_HARDWARE = ("arch", "cpu", "board", "target")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one variant on one machine.

    Attributes:
        variant: digest of its manifest.
        machine: fingerprint of the machine.
        p50_us: median time of a run of the recorded inputs, in microseconds.
        p95_us: 95th percentile of the same runs.
        memory_bytes: what the process grew by when it was loaded.
        tries: how often it was tried without an end.
        failed: why it is not tried again.
        spent_bytes: what was fetched to try it.
    """

    variant: Digest
    machine: str
    p50_us: float | None = None
    p95_us: float | None = None
    memory_bytes: int | None = None
    tries: int = 0
    failed: str | None = None
    spent_bytes: int = 0

    @property
    def trusted(self) -> bool:
        """Whether a choice may rest on it."""
        return self.p50_us is not None and not self.tries and self.failed is None

    @property
    def hopeless(self) -> str | None:
        """Why it is not tried again, if it isn't."""
        if self.failed is None and self.tries >= MAX_TRIES:
            return f"the runtime ended {self.tries} times while it tried this"
        return self.failed


class Timings(Document, frozen=True, kw_only=True):
    """The document; the record changed last comes last."""

    records: tuple[Record, ...] = ()


def fingerprint(
    labels: Mapping[str, str], *, providers: tuple[str, ...] = (), root: Path = Path("/")
) -> str:
    """What figures depend on beside the variant: 16 hexadecimal digits.

    Args:
        labels: of the device: architecture, CPU, board and target count.
        providers: execution providers that the engines here list.
        root: where ``/proc`` lies, which tells of NVIDIA's driver and cards.
    """
    nvidia = root / "proc/driver/nvidia"
    files = [nvidia / "version", *sorted(nvidia.glob("gpus/*/information"))]
    parts = (
        [labels.get(name, "") for name in _HARDWARE],
        os.cpu_count(),
        sorted(set(providers)),
        sorted(set(_libraries())),
        [path.read_text(errors="replace") for path in files if path.is_file()],
    )
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def _libraries() -> Iterator[str]:
    """Name and version of each engine's library, as its wheel's folder of metadata is named.

    Looked for by hand: `importlib.metadata` reads the metadata of every wheel, which is a quarter
    of a runtime's start where many are installed.
    """
    for folder in filter(os.path.isdir, sys.path):
        with os.scandir(folder) as entries:
            for entry in entries:
                name, dot, kind = entry.name.lower().rpartition(".")
                if dot and kind in {"dist-info", "egg-info"} and name.startswith(_LIBRARIES):
                    yield name


class TimingsFile:
    """The records on the disk, of which those of this machine are seen.

    Args:
        root: the runtime's folder.
        machine: its fingerprint.
    """

    def __init__(self, root: Path, machine: str) -> None:
        self._path = root / FILE
        self._machine = machine
        self._records = {(r.variant, r.machine): r for r in self._load()}

    def get(self, variant: str) -> Record:
        """What is known of a variant, by its manifest's digest; a blank record when nothing is."""
        blank = Record(variant=variant, machine=self._machine)
        return self._records.get((variant, self._machine), blank)

    def save(self, variant: str, **changes: object) -> None:
        """Change a variant's record, durably.

        Raises:
            StorageFullError: no room; the record is as it was.
        """
        record = replace(self.get(variant), **changes)
        rest = {key: r for key, r in self._records.items() if key != (variant, self._machine)}
        records = (*rest.values(), record)[-MAX_RECORDS:]
        point("figures.saving")
        write_durably(self._path, encode(Timings(records=records)))
        self._records = {(r.variant, r.machine): r for r in records}

    def _load(self) -> tuple[Record, ...]:
        try:
            return decode(Timings, self._path.read_bytes()).records
        except FileNotFoundError:
            return ()
        except DocumentError as error:
            _log.warning("%s can't be read, its figures are measured anew: %s", self._path, error)
            return ()
