"""Policies as people write them: read whole, or refused by the name of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from edgefleet.errors import InvalidInputError, NotFoundError, ProfileError
from edgefleet.policy_files import policy_of, read_policy, written_policy
from edgefleet.profile import load_profile
from edgefleet.protocol.documents import encode
from edgefleet.protocol.policy import AlarmRule, TelemetryPolicy
from edgefleet.protocol.release import Release
from tests.contract import samples
from tests.protocol import strategies

ALARM = """
[[alarms]]
name = "scratch"
model = "digits"
when = "score > 0.9"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def test_file_holds_a_policy(file: Path) -> None:
    file.write_text("prediction_fraction = 0.5\n" + ALARM)
    rule = AlarmRule(name="scratch", model="digits", when="score > 0.9")
    assert read_policy(file) == TelemetryPolicy(prediction_fraction=0.5, alarms=(rule,))


def test_empty_file_holds_the_default_policy(file: Path) -> None:
    file.write_text("")
    assert read_policy(file) == TelemetryPolicy()


def test_policy_that_says_everything_reads_back_the_same(file: Path) -> None:
    policy = samples.RELEASE_POLICY.telemetry
    file.write_text(written_policy(policy))
    assert read_policy(file) == policy


@settings(max_examples=50)
@given(strategies.policies)
def test_any_policy_reads_back_the_same(policy: TelemetryPolicy) -> None:
    import tomllib

    read = policy_of(tomllib.loads(written_policy(policy)), "here")
    assert encode(Release(telemetry=read)) == encode(Release(telemetry=policy))


@pytest.mark.parametrize(
    "text, said, cure",
    [
        ("predict_fraction = 0.5", "'predict_fraction'", "did you mean 'prediction_fraction'?"),
        (ALARM + "need = 3", "'alarms[0].need'", "did you mean 'needs'?"),
        (
            ALARM + 'actions = [{kind = "file", targt = "a"}]',
            "'alarms[0].actions[0].targt'",
            "did you mean 'target'?",
        ),
        ("[drift.limits]\npsi = 1.0", "'drift.limits.psi'", "fields are: psi_watch"),
        ("[drift]\nwindows_s = 1.0", "'drift.windows_s'", "did you mean 'window_s'?"),
        ("prediction_fraction = 2", "prediction_fraction: Expected", "table"),
        (ALARM + "needs = 0", "alarms[0].needs: Expected", "table"),
        ("[[alarms]]\nname = 'a'", "alarms[0]: Object missing required field `when`", "table"),
        ("alarms = 3", "alarms: Expected `array`", "table"),
        ("a = ", "is no valid TOML", "mend the line"),
        ('inputs = ["x"]', "inputs[0]: Expected", "table"),
    ],
)
def test_what_is_wrong_is_named(file: Path, text: str, said: str, cure: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        read_policy(file)
    assert said in caught.value.message
    assert caught.value.message.startswith(str(file))
    assert cure in (caught.value.cure or "")


def test_file_that_is_not_there_is_told(file: Path) -> None:
    with pytest.raises(NotFoundError, match="no policy at"):
        read_policy(file)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"#" * (300 << 10)], ids=["no text", "too large"])
def test_file_that_is_no_policy_is_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(InvalidInputError):
        read_policy(file)


def profile_with(tmp_path: Path, recorded: str) -> Path:
    config = tmp_path / "edgefleet.toml"
    config.write_text(f'[profiles.default]\nprovider = "local"\n{recorded}')
    return config


def test_profile_that_says_nothing_records_nothing_of_its_own(tmp_path: Path) -> None:
    assert load_profile(config=profile_with(tmp_path, "")).recorded is None


def test_profile_takes_the_whole_policy(tmp_path: Path) -> None:
    recorded = written_policy(samples.RELEASE_POLICY.telemetry)
    text = recorded.replace("[[", "[[profiles.default.recorded.")
    text = "\n".join(
        f"[profiles.default.recorded.{line[1:]}"
        if line.startswith("[") and line[1] != "["
        else line
        for line in text.splitlines()
    )
    config = profile_with(tmp_path, f"[profiles.default.recorded]\n{text}")
    assert load_profile(config=config).recorded == samples.RELEASE_POLICY.telemetry


@pytest.mark.parametrize(
    "recorded, said",
    [
        ("heartbeat = 3.0", "[profiles.default.recorded]: there is no field 'heartbeat'"),
        ("heartbeat_s = -3.0", "[profiles.default.recorded]: heartbeat_s: Expected"),
        ("filters = [{name = 'a', when = 'scor > 1'}]", "filters.a.when: 1:1: there is no 'scor'"),
        ('redact = {"digits/x" = ["blur"]}', "redact.digits/x: no input that may be kept"),
    ],
)
def test_profile_with_a_wrong_policy_is_refused(tmp_path: Path, recorded: str, said: str) -> None:
    config = profile_with(tmp_path, f"[profiles.default.recorded]\n{recorded}")
    with pytest.raises(ProfileError) as caught:
        load_profile(config=config)
    assert said in caught.value.message
    assert str(config) in caught.value.message


def test_recorded_that_is_no_table_is_refused(tmp_path: Path) -> None:
    config = profile_with(tmp_path, "recorded = 3")
    with pytest.raises(ProfileError, match="recorded"):
        load_profile(config=config)
