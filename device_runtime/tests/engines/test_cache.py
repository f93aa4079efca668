"""Built engines on the disk: whole or not there, capped, and shared as one file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from device_runtime.tests.building_simulator import DRIVER, NAME, install
from edgefleet.errors import (
    ConflictError,
    DocumentError,
    EdgeFleetError,
    IntegrityError,
    LimitExceededError,
    NotFoundError,
    UnsupportedError,
)
from edgefleet_runtime.cli import main
from edgefleet_runtime.engines.cache import MANIFEST, EngineCache
from edgefleet_runtime.engines.parts import Parts
from edgefleet_runtime.engines.transfer import export_engine, import_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MACHINE = {"driver": "580.65.06", "gpus": "H200"}
ENOUGH = 1 << 20


def parts(model: str = "a") -> Parts:
    return Parts(builder=NAME, provider="P", model=model, options={"o": "1"}, machine=MACHINE)


def add(cache: EngineCache, model: str = "a", content: bytes = b"engine") -> str:
    with cache.building(parts(model)) as folder:
        (folder / "m.engine").write_bytes(content)
        (folder / "m.timing").write_bytes(b"timing")
    return parts(model).key


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def other(tmp_path: Path) -> EngineCache:
    """The cache of another device."""
    return EngineCache(tmp_path / "other")


def test_an_entry_is_found_by_all_that_it_depends_on(cache: EngineCache) -> None:
    key = add(cache)
    found = cache.find(key)
    assert found is not None
    assert (found / "m.engine").read_bytes() == b"engine"
    changes: tuple[dict[str, Any], ...] = (
        {"builder": "x"},
        {"provider": "x"},
        {"model": "x"},
        {"options": {}},
        {"machine": {**MACHINE, "driver": "1"}},
    )
    for change in changes:
        assert cache.find(replace(parts(), **change).key) is None


def test_a_build_that_fails_leaves_nothing(cache: EngineCache) -> None:
    with pytest.raises(NotFoundError), cache.building(parts()) as folder:
        EngineCache(folder).folder_of("what a builder needs")
    assert list(cache.root.iterdir()) == []


def test_an_empty_build_is_none(cache: EngineCache) -> None:
    with pytest.raises(DocumentError), cache.building(parts()):
        pass
    assert cache.find(parts().key) is None


@pytest.mark.parametrize("how", ["changed", "gone", "linked", "renamed"])
def test_a_damaged_entry_is_removed(cache: EngineCache, tmp_path: Path, how: str) -> None:
    key = add(cache)
    file = cache.root / key / "m.engine"
    if how == "changed":
        file.write_bytes(b"engin!")
    elif how == "renamed":
        key = "0" * 64
        file.parent.rename(cache.root / key)
    else:
        file.unlink()
        if how == "linked":
            (tmp_path / "secret").write_bytes(b"engine")
            file.symlink_to(tmp_path / "secret")
    assert cache.find(key) is None
    assert not (cache.root / key).exists()


def test_what_a_dead_builder_left_is_swept_and_what_is_being_built_is_not(
    cache: EngineCache,
) -> None:
    with cache.building(parts()) as folder:
        left = folder.with_name(".building-left-1")
        left.mkdir()
        EngineCache(cache.root).sweep()
        assert folder.is_dir()
        assert not left.exists()
        (folder / "m.engine").touch()


def test_the_least_recently_used_go_first_and_never_those_in_use(cache: EngineCache) -> None:
    keys = [add(cache, model) for model in "abcd"]
    for age, key in enumerate(keys):
        os.utime(cache.root / key / MANIFEST, (age, age))
    cache.find(keys[1])  # used now
    size = sum(entry.bytes for entry in cache.entries().values())
    gone = cache.make_room(size // 2, in_use={keys[0]})
    assert gone == (keys[2], keys[3])
    assert cache.make_room(0, in_use={keys[0]}) == (keys[1],)
    assert list(cache.entries()) == [keys[0]]


# ---- one file


@pytest.fixture
def exported(cache: EngineCache, tmp_path: Path) -> Path:
    export_engine(cache, add(cache), tmp_path / "engine.tar")
    return tmp_path / "engine.tar"


def take(cache: EngineCache, file: Path, machine: dict[str, str] | None = None) -> None:
    import_engine(cache, file, lambda _: machine or MACHINE, max_bytes=ENOUGH)


def test_a_device_takes_what_another_built(exported: Path, other: EngineCache) -> None:
    for _ in range(2):
        take(other, exported)
    found = other.find(parts().key)
    assert found is not None
    assert (found / "m.engine").read_bytes() == b"engine"


@pytest.mark.parametrize(
    "machine, said",
    [
        ({**MACHINE, "driver": "1.2"}, "driver: built with 580.65.06, here is 1.2"),
        ({"driver": "580.65.06"}, "gpus: built with H200, here is none"),
    ],
)
def test_an_engine_of_another_machine_is_refused_and_the_difference_named(
    exported: Path, other: EngineCache, machine: dict[str, str], said: str
) -> None:
    with pytest.raises(ConflictError, match=said):
        take(other, exported, machine)
    assert not other.root.exists()


def test_an_engine_that_nothing_here_loads_is_refused(exported: Path, other: EngineCache) -> None:
    with pytest.raises(UnsupportedError, match=NAME):
        import_engine(other, exported, lambda _: None, max_bytes=ENOUGH)


def test_an_engine_over_the_cap_is_refused(exported: Path, other: EngineCache) -> None:
    with pytest.raises(LimitExceededError, match="12 bytes, 11 are allowed"):
        import_engine(other, exported, lambda _: MACHINE, max_bytes=11)


def rewritten(exported: Path, change: Callable[[tarfile.TarInfo, bytes], Iterator[Any]]) -> Path:
    """The file with each member replaced by what ``change`` gives of it."""
    to = exported.with_name("changed.tar")
    with tarfile.open(exported) as old, tarfile.open(to, "w") as new:
        for member in old:
            stream = old.extractfile(member)
            assert stream is not None
            for made, data in change(member, stream.read()):
                made.size = len(data)
                new.addfile(made, io.BytesIO(data))
    return to


def damaged(member: tarfile.TarInfo, data: bytes) -> Iterator[Any]:
    yield member, data.replace(b"timing", b"timin!") if member.name == "m.timing" else data


def longer(member: tarfile.TarInfo, data: bytes) -> Iterator[Any]:
    yield member, data + b"!" if member.name == "m.timing" else data


def linked(member: tarfile.TarInfo, data: bytes) -> Iterator[Any]:
    if member.name == "m.timing":
        member.type, member.linkname, data = tarfile.SYMTYPE, "/etc/passwd", b""
    yield member, data


def escaping(member: tarfile.TarInfo, data: bytes) -> Iterator[Any]:
    if member.name == MANIFEST:
        data = data.replace(b'"m.timing"', b'"../timing"')
    else:
        member.name = member.name.replace("m.timing", "../timing")
    yield member, data


def with_more(member: tarfile.TarInfo, data: bytes) -> Iterator[Any]:
    yield member, data
    if member.name == "m.timing":
        yield tarfile.TarInfo("more"), b"more"


def cut(member: tarfile.TarInfo, data: bytes) -> Iterator[Any]:
    if member.name != "m.timing":
        yield member, data


def without_list(member: tarfile.TarInfo, data: bytes) -> Iterator[Any]:
    if member.name != MANIFEST:
        yield member, data


@pytest.mark.parametrize(
    "change, error",
    [
        (damaged, IntegrityError),
        (longer, IntegrityError),
        (linked, DocumentError),
        (escaping, DocumentError),
        (with_more, DocumentError),
        (cut, DocumentError),
        (without_list, DocumentError),
    ],
)
def test_a_file_that_is_not_what_its_list_says_leaves_nothing(
    exported: Path, other: EngineCache, change: Any, error: type[EdgeFleetError]
) -> None:
    with pytest.raises(error):
        take(other, rewritten(exported, change))
    assert not other.root.exists() or list(other.root.iterdir()) == []
    assert not (other.root.parent / "timing").exists()


def test_a_file_that_is_no_exported_engine_is_refused(tmp_path: Path, other: EngineCache) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DocumentError, match="no exported engine"):
        take(other, tmp_path / "x.tar")
    with pytest.raises(NotFoundError):
        take(other, tmp_path / "absent.tar")


# ---- the command


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = install(tmp_path / "packages", go=tmp_path / "go")
    monkeypatch.syspath_prepend(environment["PYTHONPATH"].split(os.pathsep)[0])
    monkeypatch.setenv(DRIVER, "580.65.06")


@pytest.mark.usefixtures("installed")
def test_the_command_lists_exports_and_imports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = {"driver": "580.65.06", "gpus": "simulated"}
    built = replace(parts(), machine=machine)
    with EngineCache(tmp_path / "a" / "engines").building(built) as folder:
        (folder / "m.engine").write_bytes(b"engine")
    file, there, here = str(tmp_path / "e.tar"), str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["engines", "list", "--root", there, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["key"], told["bytes"], told["machine"]) == (built.key, 6, machine)
    assert main(["engines", "export", built.key[:8], file, "--root", there]) == 0
    assert main(["engines", "import", file, "--root", here]) == 0
    capsys.readouterr()
    assert main(["engines", "list", "--engine-cache", f"{here}/engines"]) == 0
    assert capsys.readouterr().out.startswith(f"{built.key[:16]}  6 bytes  P  driver 580.65.06")


@pytest.mark.usefixtures("installed")
def test_the_command_refuses_another_machines_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], exported: Path
) -> None:
    assert main(["engines", "import", str(exported), "--root", str(tmp_path / "b")]) == 1
    assert "gpus: built with H200, here is simulated" in capsys.readouterr().err


def test_the_command_says_that_there_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["engines", "list", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no engines are kept in {tmp_path / 'engines'}\n"


def test_the_command_names_no_engine_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["engines", "export", "abc", str(tmp_path / "f"), "--root", str(tmp_path)]
    assert main(arguments) == 1
    assert "engines list" in capsys.readouterr().err


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_whatever_bytes_an_exported_engine_has_it_is_taken_whole_or_refused(
    exported: Path, other: EngineCache, data: st.DataObject
) -> None:
    content = bytearray(exported.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    file = exported.with_name("mutated.tar")
    file.write_bytes(content[:cut] if data.draw(st.booleans()) else content)
    with contextlib.suppress(EdgeFleetError):
        take(other, file)
    for key in other.entries():
        assert other.find(key) is not None
        other.remove(key)
    assert not other.root.exists() or list(other.root.iterdir()) == []
