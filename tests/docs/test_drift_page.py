"""The pages about drift and sleeping devices: their policy is fine, their tables are what is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from edgefleet.policy_files import policy_of
from edgefleet.protocol.policy_problems import problems_of
from edgefleet_runtime.commands import once
from edgefleet_runtime.inbox import PARTIAL, SLICE, UNREADABLE
from edgefleet_runtime.redaction import BUILT_IN, GROUP, PARTS
from edgefleet_runtime.serve.messages import MIB, Limits
from edgefleet_runtime.watch.sketching import MAX_MERGED
from edgefleet_runtime.watch.tap import MAX_FEATURES, MAX_ROW_VALUES, MAX_VALUES
from edgefleet_runtime.watch.window import MAX_MODEL_FEATURES

DOCS = Path(__file__).parents[2] / "docs/how-to"
DRIFT = (DOCS / "watch-for-drift.md").read_text(encoding="utf-8")
SLEEP = (DOCS / "sleeping-devices.md").read_text(encoding="utf-8")
POLICY = re.compile(r"<!-- policy -->\n```toml\n(.*?)```", re.DOTALL)


def test_the_policy_has_no_problem() -> None:
    [text] = POLICY.findall(DRIFT)
    policy = policy_of(tomllib.loads(text), "the page")
    assert problems_of(policy, {"digits"}) == ()
    assert len(policy.captures) == 4
    assert policy.drift is not None


def test_the_page_names_every_hook() -> None:
    rows = re.findall(r"^\| (`.*`) \| .* \|$", DRIFT, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)(?::N)?`", row)}
    assert named == set(BUILT_IN)
    assert GROUP in DRIFT


def test_the_page_tells_the_bounds_that_hold() -> None:
    assert f"up to {MAX_MERGED} windows long" in DRIFT
    assert f"up to {MAX_MODEL_FEATURES} features of a model" in DRIFT
    assert f"inputs of up to {MAX_FEATURES} values" in DRIFT
    assert f"at {MAX_ROW_VALUES:,} values" in DRIFT
    assert f"at {MAX_VALUES:,} evenly spread ones" in DRIFT
    assert f"parted in {PARTS}" in DRIFT


def test_the_inbox_is_as_the_page_says() -> None:
    assert f"{Limits().max_body_bytes // MIB} MiB a file" in SLEEP
    assert f"`DIR/{UNREADABLE}/MODEL/`" in SLEEP
    assert f"`{PARTIAL}`" in SLEEP
    assert f"up to {SLICE} files in hand" in SLEEP
    codes = {int(code) for code in re.findall(r"^\| (\d) \|", SLEEP, re.MULTILINE)}
    assert codes == {once.DONE, once.REJECTED, once.UNFINISHED, once.UNDELIVERED}
