"""The folder of results: what is kept, checked, bounded and survives."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.optimization.cache import Cache, default_folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "made.onnx"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "v1").iterdir() if path.name != ".lock")


def test_a_value_is_found_by_all_of_its_key(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.write("scores", {"a": 1, "b": [2]}, {"accuracy": 0.5})
    again = Cache(tmp_path / "cache")
    assert again.read("scores", {"b": [2], "a": 1}) == {"accuracy": 0.5}
    assert again.read("scores", {"a": 1, "b": [3]}) is None
    assert again.read("made", {"a": 1, "b": [2]}) is None


def test_files_are_copied_out_under_their_paths(tmp_path: Path, model: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.write("made", {"a": 1}, "found", {"model.xml": model, "data/model.bin": model})
    assert cache.read("made", {"a": 1}, to=tmp_path / "here") == "found"
    shutil.rmtree(tmp_path / "cache")
    for name in ("model.xml", "data/model.bin"):
        assert (tmp_path / "here" / name).read_bytes() == model.read_bytes()


def _changed(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def _longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\n")


def _shorter(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("harm", [_changed, _longer, _shorter, _empty])
@pytest.mark.parametrize("name", ["entry.json", "0"])
def test_a_changed_entry_is_never_used_and_goes(
    tmp_path: Path, model: Path, name: str, harm: object
) -> None:
    cache = Cache(tmp_path / "cache")
    cache.write("made", {"a": 1}, "found", {"model.onnx": model})
    assert callable(harm)
    harm(tmp_path / "cache" / "v1" / entries(tmp_path / "cache")[0] / name)
    assert cache.read("made", {"a": 1}, to=tmp_path / "here") is None
    assert not (tmp_path / "here").exists()
    assert entries(tmp_path / "cache") == []
    cache.write("made", {"a": 1}, "anew", {"model.onnx": model})
    assert cache.read("made", {"a": 1}, to=tmp_path / "here") == "anew"


def test_an_entry_under_anothers_name_is_not_used(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.write("scores", {"a": 1}, 0.9)
    (one,) = entries(tmp_path / "cache")
    cache.write("scores", {"a": 2}, 0.1)
    (two,) = {*entries(tmp_path / "cache")} - {one}
    shutil.copytree(
        tmp_path / "cache" / "v1" / one, tmp_path / "cache" / "v1" / two, dirs_exist_ok=True
    )
    assert cache.read("scores", {"a": 2}) is None


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, model: Path) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=3 * model.stat().st_size)
    made = {}
    for number in range(2):
        before = {*entries(tmp_path / "cache")} if number else set()
        cache.write("made", {"n": number}, number, {"m": model})
        (made[number],) = {*entries(tmp_path / "cache")} - before
        os.utime(tmp_path / "cache" / "v1" / made[number] / "entry.json", (number, number))
    assert cache.read("made", {"n": 0}, to=tmp_path / "here") == 0
    cache.write("made", {"n": 2}, 2, {"m": model})
    assert made[0] in entries(tmp_path / "cache")
    assert made[1] not in entries(tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 2


def test_what_is_larger_than_the_bound_is_not_kept(tmp_path: Path, model: Path) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=100)
    cache.write("made", {"a": 1}, "found", {"m": model})
    assert cache.read("made", {"a": 1}) is None


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.write("scores", {"a": 1}, 0.5)
    left = tmp_path / "cache" / "v1" / ".tmp-left"
    left.mkdir()
    (left / "0").write_bytes(b"half")
    cache.write("scores", {"a": 2}, 0.5)
    assert not left.exists()
    assert len(entries(tmp_path / "cache")) == 2


def test_without_room_it_goes_on_and_says_so_once(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path / "cache")
    cache.write("scores", {"a": 0}, 0.5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # no file may get larger
    try:
        cache.write("made", {"a": 1}, "found", {"m": model})
        cache.write("made", {"a": 2}, "found", {"m": model})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len([r for r in caplog.records if "for this call only" in r.message]) == 1
    assert len(entries(tmp_path / "cache")) == 1
    assert cache.read("scores", {"a": 0}) == 0.5


def test_a_folder_that_anybody_may_write_to_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path / "cache")
    cache.write("scores", {"a": 1}, 0.5)
    (tmp_path / "cache" / "v1").chmod(0o777)
    assert Cache(tmp_path / "cache").read("scores", {"a": 1}) is None
    assert "may be written by others" in caplog.text
    assert len(entries(tmp_path / "cache")) == 1


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    Cache(tmp_path / "cache").write("scores", {"a": 1}, 0.5)
    assert (tmp_path / "cache" / "v1").stat().st_mode & 0o077 == 0


def test_a_file_in_its_place_is_refused(model: Path) -> None:
    with pytest.raises(InvalidInputError, match="is no folder"):
        Cache(model)


def test_the_users_folder_is_where_the_desktop_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "edgefleet" / "optimize"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "edgefleet" / "optimize"


WRITER = """
import sys
from pathlib import Path
from edgefleet.optimization.cache import Cache
cache = Cache(Path(sys.argv[1]))
for number in range(20):
    cache.write("made", {"n": number}, number, {"m": Path(sys.argv[2])})
"""


def test_several_processes_write_at_once(tmp_path: Path, model: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "cache"), str(model)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in started] == [""] * 3
    cache = Cache(tmp_path / "cache")
    found = [cache.read("made", {"n": n}, to=tmp_path / f"copy-{n}") for n in range(20)]
    assert found == [*range(20)]
    assert len(entries(tmp_path / "cache")) == 20


def test_an_entry_that_goes_while_it_is_read_is_no_entry(tmp_path: Path, model: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.write("made", {"a": 1}, "found", {"m": model})
    (entry,) = entries(tmp_path / "cache")
    (tmp_path / "cache" / "v1" / entry / "0").unlink()
    assert cache.read("made", {"a": 1}, to=tmp_path / "here") is None
    cache.write("made", {"a": 1}, "anew", {"m": model})
    assert cache.read("made", {"a": 1}, to=tmp_path / "here") == "anew"


def test_a_path_that_leads_elsewhere_is_never_written(tmp_path: Path, model: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.write("made", {"a": 1}, "found", {"../outside": model})
    assert cache.read("made", {"a": 1}, to=tmp_path / "here") is None
    assert not (tmp_path / "outside").exists()
