"""The kit finds what it is for: each flaw below is a mistake that a plugin's author makes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from edgefleet.errors import ConflictError, EdgeFleetError, ThrottledError
from edgefleet.interfaces.blobs import BlobStore
from edgefleet.interfaces.document_registry import DocumentRegistry
from edgefleet.interfaces.state import StateStore, Stored
from edgefleet.protocol.digest import blob_path
from edgefleet.protocol.segment import SegmentName
from edgefleet.testing.kit.blobs import BlobStoreConformance
from edgefleet.testing.kit.deployer import DeployerConformance
from edgefleet.testing.kit.registry import RegistryConformance
from edgefleet.testing.kit.state import StateStoreConformance
from edgefleet.testing.kit.state_service import StateServiceConformance
from edgefleet.testing.kit.telemetry import TelemetryConformance
from edgefleet_runtime.channels.file import FileChannel
from edgefleet_template.deployer import MailboxDeployer
from edgefleet_template.mailboxes import Mailboxes
from edgefleet_template.registry import FolderBlobStore
from edgefleet_template.state import SqliteStateStore
from edgefleet_template.telemetry import MailboxTelemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.protocol.bundle import Descriptor
    from edgefleet.protocol.pointer import Pointer


class MemoryState(StateStore):
    """A sound store without threads' safety, to build flaws on."""

    provider: ClassVar[str] = "memory"  # type: ignore[misc]

    def __init__(self) -> None:
        self.documents: dict[str, Stored] = {}
        self.writes = 0

    def _read(self, key: str) -> Stored | None:
        return self.documents.get(key)

    def _tag(self, key: str) -> str | None:
        held = self.documents.get(key)
        return None if held is None else held.tag

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        if self._tag(key) != expect:
            raise ConflictError(key)
        self.writes += 1
        self.documents[key] = Stored(data=data, tag=str(self.writes))
        return str(self.writes)

    def _delete(self, key: str, expect: str) -> None:
        if self._tag(key) != expect:
            raise ConflictError(key)
        del self.documents[key]

    def _keys(self, prefix: str) -> Iterator[str]:
        yield from sorted(key for key in self.documents if key.startswith(prefix))


class CreatesOver(MemoryState):
    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        return super()._write(key, data, self._tag(key) if expect is None else expect)


class TheLastWriterWins(MemoryState):
    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        return super()._write(key, data, self._tag(key))


class DeletesAnyway(MemoryState):
    def _delete(self, key: str, expect: str) -> None:
        self.documents.pop(key, None)


class ListsByText(MemoryState):
    def _keys(self, prefix: str) -> Iterator[str]:
        return super()._keys(prefix.rstrip("/"))


class ListsUnsorted(MemoryState):
    def _keys(self, prefix: str) -> Iterator[str]:
        yield from reversed(list(super()._keys(prefix)))


class FoldsCase(MemoryState):
    def _read(self, key: str) -> Stored | None:
        return super()._read(key.lower())

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        return super()._write(key.lower(), data, expect)


class KeepsText(MemoryState):
    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        return super()._write(key, data.decode("utf-8", "replace").encode(), expect)


@pytest.mark.parametrize(
    "flawed, claim",
    [
        (CreatesOver, "test_creating_needs_absence"),
        (TheLastWriterWins, "test_replacing_needs_the_tag_that_was_read"),
        (DeletesAnyway, "test_deleting_needs_the_tag_that_was_read"),
        (DeletesAnyway, "test_deleting_twice_conflicts"),
        (ListsByText, "test_keys_are_those_below_the_prefix_in_order"),
        (ListsUnsorted, "test_keys_are_those_below_the_prefix_in_order"),
        (FoldsCase, "test_keys_that_differ_in_case_are_two"),
        (KeepsText, "test_a_document_reads_back_as_written"),
    ],
)
def test_a_flawed_state_store_fails(flawed: type[MemoryState], claim: str) -> None:
    suite = StateStoreConformance()
    getattr(suite, claim)(MemoryState())
    assert fails(getattr(suite, claim), flawed())


class BehindANetwork(MemoryState):
    """Sound: a call whose answer was lost, or that was refused once, ends as any other.

    Attributes:
        lost: calls whose first answer gets lost.
        slow: calls that are refused once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()
        self.slow: set[str] = set()


class WritesOverItself(BehindANetwork):
    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        tag = super()._write(key, data, expect)
        return super()._write(key, data, expect) if "replace" in self.lost else tag


class DeletesAfterItself(BehindANetwork):
    def _delete(self, key: str, expect: str) -> None:
        super()._delete(key, expect)
        if "delete" in self.lost:
            super()._delete(key, expect)


class TakesEachRepeatForDone(BehindANetwork):
    def _delete(self, key: str, expect: str) -> None:
        if "delete" not in self.slow or key in self.documents:
            super()._delete(key, expect)


class GivesUpAtOnce(BehindANetwork):
    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        if "replace" in self.slow:
            raise ThrottledError(key)
        return super()._write(key, data, expect)


@pytest.mark.parametrize(
    "flawed, claim, trouble",
    [
        (WritesOverItself, "test_a_write_whose_answer_was_lost_conflicts_not_with_itself", "lost"),
        (DeletesAfterItself, "test_a_deletion_whose_answer_was_lost_finds_itself_done", "lost"),
        (
            TakesEachRepeatForDone,
            "test_a_deletion_that_was_only_throttled_tells_what_is_gone",
            "slow",
        ),
        (GivesUpAtOnce, "test_a_throttled_write_is_repeated", "slow"),
    ],
)
def test_a_store_that_its_network_confuses_fails(
    flawed: type[BehindANetwork], claim: str, trouble: str
) -> None:
    test = getattr(StateServiceConformance(), claim)
    sound, other = BehindANetwork(), flawed()
    test(sound, getattr(sound, trouble).add)
    assert fails(test, other, getattr(other, trouble).add)


class StoresBeforeChecking(FolderBlobStore):
    def _put(self, descriptor: Descriptor, source: Callable[[], Any], progress: Any) -> None:
        target = self._root / blob_path(descriptor.digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        with source() as stream, target.open("wb") as to:
            shutil.copyfileobj(stream, to)


class IgnoresOffsets(FolderBlobStore):
    def _open(self, digest: str, offset: int) -> Any:
        return super()._open(digest, 0)


class SignsItsAddress(FolderBlobStore):
    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(f"{source}?signature=secret" for source in super().sources)


@pytest.mark.parametrize(
    "flawed, claim, given",
    [
        (
            StoresBeforeChecking,
            "test_wrong_content_is_refused_and_stays_invisible",
            {"wrong": "other"},
        ),
        (StoresBeforeChecking, "test_an_interrupted_put_leaves_nothing_visible", {}),
        (IgnoresOffsets, "test_reading_starts_at_the_offset", {"offset": 7}),
        (SignsItsAddress, "test_sources_are_stable_addresses_without_secrets", {}),
    ],
)
def test_a_flawed_blob_store_fails(
    flawed: type[FolderBlobStore],
    claim: str,
    given: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "true")  # there pytest shows a difference whole, whatever it takes
    suite = BlobStoreConformance()
    getattr(suite, claim)(FolderBlobStore(tmp_path / "sound"), **given)
    assert fails(getattr(suite, claim), flawed(tmp_path / "flawed"), **given)


class Overwrites(DocumentRegistry):
    def _create(self, record: ModelVersion) -> None:
        key = f"registry/{record.name}/versions/{record.version}.json"
        self._state.update(key, lambda _: record.model_dump_json(exclude={"aliases"}).encode())


class ForgetsWhoDecided(DocumentRegistry):
    def _update(
        self, name: str, version: str, change: Callable[[ModelVersion], ModelVersion]
    ) -> ModelVersion:
        def less(before: ModelVersion) -> ModelVersion:
            after = change(before)
            return after.model_copy(update={"approval": type(after.approval)()})

        return super()._update(name, version, less)


@pytest.mark.parametrize(
    "flawed, claim",
    [
        (Overwrites, "test_a_version_never_gets_other_content"),
        (ForgetsWhoDecided, "test_a_decision_is_kept_with_who_and_why"),
    ],
)
def test_a_flawed_registry_fails(
    flawed: type[DocumentRegistry], claim: str, tmp_path: Path
) -> None:
    def made(kind: type[DocumentRegistry], place: Path) -> DocumentRegistry:
        blobs: BlobStore = FolderBlobStore(place)
        return kind(blobs, SqliteStateStore(place), provider="flawed")

    suite = RegistryConformance()
    for kind in (DocumentRegistry, flawed):
        (tmp_path / kind.__name__).mkdir()
    getattr(suite, claim)(
        made(DocumentRegistry, tmp_path / "a"), tmp_path / DocumentRegistry.__name__
    )
    assert fails(getattr(suite, claim), made(flawed, tmp_path / "b"), tmp_path / flawed.__name__)


class TakesTheWholeFolder(MailboxDeployer):
    def _publish(self, group: str, pointer: Pointer) -> None:
        shutil.rmtree(self._mail.pointer(group).parent, ignore_errors=True)
        super()._publish(group, pointer)


class TrustsAnybody(MailboxDeployer):
    """Takes each device's report from wherever any device put one for it."""

    def _report(self, device: str) -> Any:
        thieves = self._mail.outgoing("thief") / f"{device}.json"
        if thieves.exists():
            shutil.copy(thieves, self._mail.outgoing(device) / "report.json")
        return super()._report(device)


class PublishesWhileRendering(MailboxDeployer):
    def _render(self, group: str, pointer: Pointer) -> Iterator[Any]:
        yield from super()._render(group, pointer)
        self.publish(group, pointer)


@pytest.mark.parametrize(
    "flawed, claim",
    [
        (TakesTheWholeFolder, "test_documents_of_others_are_left_alone"),
        (TrustsAnybody, "test_a_device_cannot_report_as_another"),
        (PublishesWhileRendering, "test_publishing_writes_what_was_rendered"),
    ],
)
def test_a_flawed_deployer_fails(flawed: type[MailboxDeployer], claim: str, tmp_path: Path) -> None:
    def run(kind: type[MailboxDeployer], home: Path) -> None:
        mail, deployer = Mailboxes(home), kind(home, name="flawed")
        notes = home / "groups" / "line-3" / "notes.txt"

        def plant(_: str) -> None:
            notes.parent.mkdir(parents=True)
            notes.write_text("mine")

        def check() -> None:
            assert notes.exists()

        def end(name: str) -> FileChannel:
            return FileChannel(mail.incoming(name) / "pointer.json", mail.outgoing(name))

        def forge(by: str, victim: str, report: bytes) -> None:
            (mail.outgoing(by) / f"{victim}.json").write_bytes(report)

        fixtures = {
            "deployer": deployer,
            "add_device": lambda name, *, group: deployer.enroll(name, group=group),
            "device_end": end,
            "foreign": (plant, check),
            "forge_report": forge,
        }
        test = getattr(DeployerConformance(), claim)
        test(**{name: fixtures[name] for name in arguments(test)})

    run(MailboxDeployer, tmp_path / "sound")
    assert fails(run, flawed, tmp_path / "flawed")


class ReadsTheFirstDayOnly(MailboxTelemetry):
    def _segments(self) -> Iterator[SegmentName]:
        for name in super()._segments():
            yield name
            return


def test_flawed_telemetry_fails(tmp_path: Path) -> None:
    def run(kind: type[MailboxTelemetry], home: Path) -> None:
        suite, deployer = TelemetryConformance(), MailboxDeployer(home, name="flawed")
        mail = Mailboxes(home)
        upload = suite_upload(
            suite,
            lambda name, *, group: deployer.enroll(name, group=group),
            lambda name: FileChannel(mail.incoming(name) / "p", mail.outgoing(name)),
            tmp_path,
        )
        suite.test_events_read_back_as_recorded(kind(home), upload)

    run(MailboxTelemetry, tmp_path / "sound")
    assert fails(run, ReadsTheFirstDayOnly, tmp_path / "flawed")


def suite_upload(suite: TelemetryConformance, *given: Any) -> Any:
    """What the suite's own fixture gives."""
    return TelemetryConformance.upload.__wrapped__(suite, *given)  # type: ignore[attr-defined]


def arguments(test: Callable[..., None]) -> tuple[str, ...]:
    code = test.__code__
    return code.co_varnames[1 : code.co_argcount]


def fails(run: Callable[..., None], *given: Any, **named: Any) -> bool:
    try:
        run(*given, **named)
    except (AssertionError, EdgeFleetError, pytest.fail.Exception):
        return True
    return False
