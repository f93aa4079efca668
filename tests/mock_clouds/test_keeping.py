"""What mock clouds of every vendor keep between two runs, and what they say before one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from edgefleet.errors import ConfigurationError, MissingExtraError
from edgefleet.testing.cloud.keeping import Keeper, Place
from edgefleet.testing.cloud.refusals import made_of_extra, not_running


def test_a_place_that_was_kept_is_found_again(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "cloud.json")
    keeper.save({"place": Place({"bucket": "one", "port": 8443})})
    place = Place({"bucket": "fresh", "port": 0})
    keeper.restore({"place": place})
    assert place.told == {"bucket": "one", "port": 8443}


def test_a_place_that_nobody_kept_stays_as_it_was_told(tmp_path: Path) -> None:
    place = Place({"port": 0})
    Keeper(tmp_path / "cloud.json").restore({"place": place})
    assert place.told == {"port": 0}


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}', '{"version": 0, "parts": {}}'])
def test_a_file_that_another_version_or_nobody_kept_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cloud.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="an empty folder"):
        Keeper(path).restore({"place": Place({})})


def test_what_a_mock_lacks_is_named_with_what_installs_it() -> None:
    with (
        pytest.raises(MissingExtraError, match="the mock of Acme needs no_such_thing") as raised,
        made_of_extra("Acme", "edgefleet-acme"),
    ):
        import_module("no_such_thing")
    assert raised.value.cure == "pip install 'edgefleet-acme[mock]'"


def test_a_mock_that_is_not_running_says_what_helps() -> None:
    error = not_running("Acme")
    assert (error.message, error.cure) == ("the mock of Acme isn't running", "start it first")
