from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet.errors import ConfigurationError, PluginImportError
from edgefleet_runtime.channels.discovery import channel_named, installed_channels
from edgefleet_runtime.channels.file import FileChannel


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with a channel that doesn't import and one that is no channel."""
    info = tmp_path / "carrier_pigeon-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: carrier-pigeon\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[edgefleet_runtime.channels]\n"
        "file = edgefleet_runtime.channels.file:FileChannel\n"
        "pigeon = carrier_pigeon:Pigeon\n"
        "dict = builtins:dict\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


@pytest.mark.usefixtures("third_party")
class TestDiscovery:
    def test_channels_are_listed_without_being_imported(self) -> None:
        assert {"dict", "file", "pigeon"} <= set(installed_channels())

    def test_a_channel_is_found_by_its_name(self) -> None:
        assert channel_named("file") is FileChannel

    def test_an_unknown_channel_is_told_with_those_there_are(self) -> None:
        with pytest.raises(ConfigurationError, match="smoke") as caught:
            channel_named("smoke")
        assert "pigeon" in str(caught.value)

    def test_a_broken_channel_harms_only_who_asks_for_it(self) -> None:
        with pytest.raises(PluginImportError, match="carrier_pigeon"):
            channel_named("pigeon")

    def test_something_else_is_no_channel(self) -> None:
        with pytest.raises(PluginImportError, match="no Channel") as caught:
            channel_named("dict")
        assert caught.value.cure == "upgrade carrier-pigeon"

    def test_of_two_channels_with_one_name_neither_is_chosen(self, tmp_path: Path) -> None:
        info = tmp_path / "smoke_signals-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: smoke-signals\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[edgefleet_runtime.channels]\ndict = builtins:set\n"
        )
        with pytest.raises(PluginImportError, match="several distributions offer") as caught:
            channel_named("dict")
        assert caught.value.cure == "keep one: pip uninstall carrier-pigeon or smoke-signals"


@pytest.mark.parametrize("name", ["greengrass", "iotedge", "kubernetes", "pull"])
def test_a_channel_of_a_vendor_loads_its_library_when_it_connects(name: str) -> None:
    code = (
        "import sys\n"
        "from edgefleet_runtime.channels.discovery import channel_named\n"
        f"channel_named({name!r})\n"
        "print(*{module.partition('.')[0] for module in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"awscrt", "awsiot", "azure", "cryptography", "paho"} & set(done.stdout.split())
