"""A rollout's policy as Greengrass has it: a deployment's job configuration and failure policy.

Pure. What a policy puts in place is ours, and goes with the release that it was given for: what it
displaced is noted beside the pointer, and comes back with the next release that has none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgefleet.interfaces.policy import PolicyLimits, RolloutPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

# AWS IoT Greengrass V2's API reference: IoTJobExponentialRolloutRate, IoTJobTimeoutConfig;
# AWS IoT jobs: an execution has 1 minute to 7 days.
LIMITS = PolicyLimits(
    per_minute=(1, 1000),
    faster_by=(1.1, 5.0),
    faster_decimals=1,
    counting=("notified", "succeeded"),
    stop_after=True,
    on_failure=("keep", "roll-back"),
    timeout_s=(60, 10_080 * 60),
    timeout_step_s=60,
)
NOTE = "rollout"
"""Where the configuration of our component says what a policy changed; empty for nothing."""
_JOB, _POLICIES, _FAILURE = "iotJobConfiguration", "deploymentPolicies", "failureHandlingPolicy"
_HANDLING = {"keep": "DO_NOTHING", "roll-back": "ROLLBACK"}
_COUNTED = {"notified": "numberOfNotifiedThings", "succeeded": "numberOfSucceededThings"}


def job_configuration(policy: RolloutPolicy) -> dict[str, Any]:
    """``iotJobConfiguration`` of a policy; empty where it says nothing of that."""
    job: dict[str, Any] = {}
    if policy.faster is not None:
        job["jobExecutionsRolloutConfig"] = {
            "exponentialRate": {
                "baseRatePerMinute": policy.per_minute,
                "incrementFactor": policy.faster.by,
                "rateIncreaseCriteria": {_COUNTED[policy.faster.counting]: policy.faster.after},
            }
        }
    elif policy.per_minute is not None:
        job["jobExecutionsRolloutConfig"] = {"maximumPerMinute": policy.per_minute}
    if policy.stop_after is not None:
        criterion = {
            "failureType": "ALL",
            "action": "CANCEL",
            "thresholdPercentage": policy.stop_after.failed_percent,
            "minNumberOfExecutedThings": policy.stop_after.devices,
        }
        job["abortConfig"] = {"criteriaList": [criterion]}
    if policy.timeout_s is not None:
        job["timeoutConfig"] = {"inProgressTimeoutInMinutes": policy.timeout_s // 60}
    return job


def paced(
    request: Mapping[str, Any], noted: str, policy: RolloutPolicy | None
) -> tuple[dict[str, Any], str]:
    """A deployment's request under a policy, and the note to leave with it.

    Args:
        request: as it would be if nothing of the deployment in place changed.
        noted: what the deployment in place has at `NOTE`.
        policy: of the release; None for none, which undoes the one before.
    """
    before = _undone(request, noted)
    if policy is None:
        return before, ""
    after = dict(before)
    job = job_configuration(policy)
    if job:
        after[_JOB] = job
    if policy.on_failure is not None:
        failure = {_FAILURE: _HANDLING[policy.on_failure]}
        after[_POLICIES] = {**before.get(_POLICIES, {}), **failure}
    note = {
        "policy": policy.model_dump(mode="json", exclude_none=True),
        "job": before.get(_JOB),
        "failure": before.get(_POLICIES, {}).get(_FAILURE),
    }
    return after, json.dumps(note, sort_keys=True)


def _undone(request: Mapping[str, Any], noted: str) -> dict[str, Any]:
    """The request without what the policy before put there and nobody changed since."""
    plain = dict(request)
    try:
        note = json.loads(noted) if noted else None
        policy = None if note is None else RolloutPolicy.model_validate(note["policy"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return plain  # no note of ours: what is in place is somebody's wish
    if note is None or policy is None:
        return plain
    job = job_configuration(policy)
    if job and plain.get(_JOB) == job:
        del plain[_JOB]
        if note.get("job"):
            plain[_JOB] = note["job"]
    handling = None if policy.on_failure is None else _HANDLING[policy.on_failure]
    policies = dict(plain.get(_POLICIES) or {})
    if handling is not None and policies.get(_FAILURE) == handling:
        del policies[_FAILURE]
        if note.get("failure"):
            policies[_FAILURE] = note["failure"]
        plain[_POLICIES] = policies
    return plain
