"""`edgefleet device enroll` and `revoke` where devices join by themselves."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgefleet.cli.app import cli
from edgefleet.fleet import connect
from edgefleet.protocol.documents import decode
from edgefleet_gateway.authority import open_authority
from edgefleet_gateway.joining import Joining, RefusedError
from edgefleet_gateway.records import DeviceRecord, Keys
from edgefleet_gateway.roster import Roster
from edgefleet_gateway.settings import GatewaySettings
from edgefleet_local.state import DirectoryStateStore
from providers.gateway.tests.joining_rig import FLEET, Machine

PROFILE = """\
[profiles.default]
provider = "local"
deployers = ["gateway", "local"]
[profiles.default.gateway]
addresses = ["https://gw.example:8443"]
"""


class Fleet:
    """A fleet's folder, and a gateway's part in joining."""

    def __init__(self, folder: Path) -> None:
        self.state = DirectoryStateStore(folder / ".edgefleet" / "default")
        self.keys, self.settings = Keys("edgefleet"), GatewaySettings()

    def joining(self) -> Joining:
        """The gateway is started."""
        return Joining(
            open_authority(
                Path(".edgefleet/authority"), state=self.state, keys=self.keys, fleet=FLEET
            ),
            roster=Roster(lambda: self.state, self.keys),
            state=self.state,
            keys=self.keys,
            settings=self.settings,
        )

    def rung(self) -> str:
        """What the bell said last."""
        return Roster(lambda: self.state, self.keys).bell().changes[-1][1]

    def record(self, device: str) -> DeviceRecord:
        """A device's record."""
        stored = self.state.read(self.keys.device(device))
        assert stored is not None
        return decode(DeviceRecord, stored.data)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    for name in [name for name in os.environ if name.startswith("EDGEFLEET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    monkeypatch.chdir(tmp_path)
    Path("edgefleet.toml").write_text(PROFILE)
    with connect() as found:
        home = found.state._root.parent  # type: ignore[attr-defined]
    made = Fleet(tmp_path)
    made.state = DirectoryStateStore(home)
    return made


def run(*words: str, expect: int = 0) -> Result:
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == expect, done.output
    return done


def run_json(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


def invited(*words: str) -> Any:
    return run_json("device", "enroll", *words, "--group", "gateway/line")


def test_it_prints_one_command_and_nothing_else(fleet: Fleet) -> None:
    fleet.joining()
    done = run("device", "enroll", "cam-07", "--group", "gateway/line")
    (line,) = done.stdout.splitlines()
    assert line.startswith("f=$(mktemp) && curl -fsSk --pinnedpubkey")
    assert "https://gw.example:8443/install.sh" in line
    assert "It works once" in done.stderr
    assert "token" not in done.stderr.lower().replace("show it", "")


def test_before_a_gateway_was_started_it_says_to_start_one(fleet: Fleet) -> None:
    done = run("device", "enroll", "cam-07", "--group", "gateway/line", expect=5)
    assert "edgefleet gateway serve" in done.stderr
    assert list(fleet.state.keys("edgefleet/")) == []


def test_what_is_printed_makes_the_device(fleet: Fleet) -> None:
    joining = fleet.joining()
    facts = invited("cam-07", "--label", "site=north", "--expires", "2d")
    assert (facts["device"], facts["group"]) == ("cam-07", "line")
    left = datetime.fromisoformat(facts["ends"]) - datetime.now(UTC)
    assert timedelta(days=1, hours=23) < left <= timedelta(days=2)
    assert joining.enroll(Machine().enrolment(facts["token"])).device == "cam-07"
    (device,) = run_json("devices")["devices"]
    assert (device["name"], device["labels"]) == ("cam-07", {"site": "north"})


def test_a_second_machine_must_be_meant(fleet: Fleet) -> None:
    joining = fleet.joining()
    joining.enroll(Machine().enrolment(invited("cam-07")["token"]))
    before = fleet.record("cam-07")
    done = run("device", "enroll", "cam-07", "--group", "gateway/line", expect=4)
    assert "--replace" in done.stderr
    joining.enroll(Machine().enrolment(invited("cam-07", "--replace")["token"]))
    after = fleet.record("cam-07")
    assert len(after.certificates) == 1
    assert after.certificates != before.certificates


def test_a_revoked_device_syncs_no_more(fleet: Fleet) -> None:
    joining = fleet.joining()
    joining.enroll(Machine().enrolment(invited("cam-07")["token"]))
    assert "cam-07 syncs no more" in run("device", "revoke", "cam-07", "--yes").stdout
    assert run_json("device", "revoke", "cam-07") == {"revoked": "cam-07", "group": "line"}
    record = fleet.record("cam-07")
    assert not record.allows(record.certificates[0].serial)
    run("device", "retire", "cam-07", "--yes")
    assert run_json("devices")["devices"] == []


def test_a_list_gives_a_command_for_each_and_again_for_those_who_have_not_joined(
    fleet: Fleet, tmp_path: Path
) -> None:
    joining = fleet.joining()
    lines = ["name,group,site", *(f"cam-{n:02},gateway/line,north" for n in range(20)), "x x,,"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    words = ("device", "enroll", "--from", "list.csv")
    rows = list(csv.DictReader(io.StringIO(run(*words, expect=1).stdout)))
    assert [row["outcome"] for row in rows] == ["invited"] * 20 + ["failed"]
    assert len({row["token"] for row in rows[:20]}) == 20
    for row in rows[:15]:
        found = joining.enroll(Machine().enrolment(row["token"]))
        assert found.device == row["name"]
        assert row["token"] in row["command"]
    again = run(*words, expect=1)
    after = list(csv.DictReader(io.StringIO(again.stdout)))
    assert [row["outcome"] for row in after] == ["joined"] * 15 + ["invited"] * 5 + ["failed"]
    assert all(not row["token"] for row in after[:15])
    assert "5 invited, 15 joined, 1 failed" in again.stderr
    with pytest.raises(RefusedError):
        joining.enroll(Machine().enrolment(rows[16]["token"]))  # the newer one counts
    assert joining.enroll(Machine().enrolment(after[16]["token"])).device == "cam-16"
    assert fleet.record("cam-16").labels == {"site": "north"}


def test_a_list_with_replace_invites_those_who_have_joined_too(
    fleet: Fleet, tmp_path: Path
) -> None:
    joining = fleet.joining()
    joining.enroll(Machine().enrolment(invited("cam-07")["token"]))
    (tmp_path / "list.csv").write_text("name\ncam-07\n")
    words = ("device", "enroll", "--from", "list.csv", "--group", "gateway/line", "--replace")
    (row,) = run_json(*words)["devices"]
    assert row["outcome"] == "invited"
    assert joining.enroll(Machine().enrolment(row["token"])).device == "cam-07"


def test_the_authority_is_rotated_by_a_command(fleet: Fleet) -> None:
    done = run("gateway", "rotate-authority", "--yes", expect=3)
    assert "edgefleet gateway serve" in done.stderr
    joining = fleet.joining()
    before = joining.enroll(Machine().enrolment(invited("cam-07")["token"]))
    first = run_json("gateway", "rotate-authority", "--yes")
    assert first["believed"] == 2
    assert fleet.rung() == "authority"
    after = fleet.joining().enroll(Machine().enrolment(invited("cam-08")["token"]))
    assert after.authorities.endswith(before.authorities)
    second = run_json("gateway", "rotate-authority", "--yes", "--distrust-old")
    assert second["believed"] == 1
    assert not set(second["pins"]) & set(first["pins"])


def test_a_device_of_another_deployer_is_not_invited(fleet: Fleet) -> None:
    fleet.joining()
    run("device", "enroll", "cam-07", "--group", "local/line")
    done = run("device", "enroll", "cam-07", "--group", "gateway/line", expect=4)
    assert "in a group of local" in done.stderr
