"""Pipeline definitions: what is refused, and what their expressions stand for. Pure.

The form is the schema 2020-12-01; `pipeline_definition` says in what the service differs. Served
here are the steps Training, Condition and Fail; of conditions those that compare two values.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.strictness import ModelError, check_request, service_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

VERSION = "2020-12-01"
MAX_STEPS = 50  # a pipeline may have so many: SageMaker's quotas
_TOP = {"Version", "Metadata", "Parameters", "PipelineExperimentConfig", "Steps"}
_STEP = {"Name", "Type", "DependsOn", "DisplayName", "Description", "Arguments"}
_MORE = {"Training": {"RetryPolicies", "CacheConfig"}, "Condition": set[str](), "Fail": set[str]()}
_NAME = re.compile(r"[A-Za-z0-9\-_]{1,64}")
_REFERENCE = re.compile(r"Steps\.(?P<step>[A-Za-z0-9\-_]+)(?P<path>[.\[].*)")
_PART = re.compile(r"\.?([A-Za-z0-9_\-]+)|\['([^']+)'\]|\[(\d+)\]")
_NAMED_BY = ("MetricName", "OutputName", "ChannelName", "Name")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "GreaterThan": lambda left, right: left > right,
    "GreaterThanOrEqualTo": lambda left, right: left >= right,
    "LessThan": lambda left, right: left < right,
    "LessThanOrEqualTo": lambda left, right: left <= right,
    "Equals": lambda left, right: left == right,
    "NotEquals": lambda left, right: left != right,
}


class UnknownError(LookupError):
    """An expression names what isn't there."""


def read(text: str) -> list[dict[str, Any]]:
    """The steps of a definition.

    Raises:
        Fault: it isn't one, or not one that is served here.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _refused(f"the definition is no JSON: {error}") from error
    if not isinstance(found, dict) or set(found) - _TOP or found.get("Version") != VERSION:
        raise _refused(f"a definition has Version {VERSION!r} and no members but {sorted(_TOP)}")
    if found.get("Parameters"):
        raise Fault("NotServedException", "this mock serves no parameters of pipelines", 501)
    steps = found.get("Steps")
    if not isinstance(steps, list) or not steps:
        raise _refused("Steps is a list of at least one")
    everything = list(flat(steps))
    names = [str(step.get("Name")) for step in everything]
    if len(set(names)) < len(names) or len(names) > MAX_STEPS:
        raise _refused(f"names of steps are unique, and steps at most {MAX_STEPS}")
    for step in everything:
        _check_step(step, set(names))
    in_order(steps)
    return steps


def flat(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every step, those inside of conditions included."""
    for step in steps:
        if not isinstance(step, dict):
            raise _refused("a step is an object")
        yield step
        arguments = step.get("Arguments", {})
        if step.get("Type") == "Condition" and isinstance(arguments, dict):
            yield from flat([*arguments.get("IfSteps", ()), *arguments.get("ElseSteps", ())])


def _check_step(step: dict[str, Any], names: set[str]) -> None:
    name, kind = str(step.get("Name")), str(step.get("Type"))
    if not _NAME.fullmatch(name):
        raise _refused(f"{name!r} is no name of a step")
    if kind not in _MORE:
        raise Fault("NotServedException", f"this mock serves no {kind} steps", 501)
    if set(step) - _STEP - _MORE[kind] or not isinstance(step.get("Arguments"), dict):
        raise _refused(f"step {name} has a member that {kind} steps have not, or no Arguments")
    for asked in (*step.get("DependsOn", ()), *(ref for ref, _ in references(step))):
        if asked not in names:
            raise _refused(f"step {name} refers to {asked!r}, which isn't there")
    if kind == "Training":
        _check_training(name, step["Arguments"])
    elif kind == "Condition":
        _check_condition(name, step["Arguments"])


def _check_condition(name: str, arguments: dict[str, Any]) -> None:
    if set(arguments) - {"Conditions", "IfSteps", "ElseSteps"} or not arguments.get("Conditions"):
        raise _refused(f"step {name} needs Conditions, and may have IfSteps and ElseSteps")
    for condition in arguments["Conditions"]:
        if set(condition) != {"Type", "LeftValue", "RightValue"}:
            raise _refused(f"step {name}: a condition has Type, LeftValue, RightValue")
        if condition["Type"] not in COMPARISONS:
            raise _refused(f"step {name}: no condition {condition['Type']!r}")


def _check_training(name: str, arguments: dict[str, Any]) -> None:
    """Hold arguments against CreateTrainingJob, as far as they are known before the steps ran."""
    if "TrainingJobName" in arguments:
        raise _refused(f"step {name}: SageMaker names the job of a training step itself")

    def stand_in(expression: dict[str, Any]) -> object:
        path = str(expression.get("Get", ""))
        return "s3://b/k" if path.endswith("S3ModelArtifacts") else "x"

    known = {"TrainingJobName": "x", **filled(arguments, stand_in)}
    try:
        check_request(service_model("sagemaker").operation_model("CreateTrainingJob"), known)
    except ModelError as error:
        raise _refused(f"step {name}: {error}") from error


def references(value: object) -> Iterator[tuple[str, str]]:
    """Step and path of every property that is referred to, but for steps inside of a condition."""
    if isinstance(value, dict):
        got = value.get("Get")
        if got is not None:
            found = _REFERENCE.fullmatch(str(got))
            if found is None:
                raise _refused(f"{got!r} refers to no property of a step")
            yield found["step"], found["path"]
        for key, inner in value.items():
            if key not in {"IfSteps", "ElseSteps"}:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def in_order(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps, each after those that it needs.

    Raises:
        Fault: they need one another in a circle.
    """
    own = {step["Name"] for step in steps}
    left, done, ordered = list(steps), set[str](), list[dict[str, Any]]()
    while left:
        ready = [step for step in left if _needs(step) & own <= done]
        if not ready:
            raise _refused("steps depend on one another in a circle")
        ordered += ready
        done |= {step["Name"] for step in ready}
        left = [step for step in left if step["Name"] not in done]
    return ordered


def _needs(step: dict[str, Any]) -> set[str]:
    inside = [*flat([step])]
    own = {one["Name"] for one in inside}
    named = {name for one in inside for name, _ in references(one)}
    return {*named, *(name for one in inside for name in one.get("DependsOn", ()))} - own


def filled(value: Any, evaluate: Callable[[dict[str, Any]], object]) -> Any:  # noqa: ANN401 - JSON
    """A value with what its expressions stand for in their place."""
    if isinstance(value, list):
        return [filled(inner, evaluate) for inner in value]
    if not isinstance(value, dict):
        return value
    if "Get" in value:
        return evaluate(value)
    if "Std:Join" in value:
        joined = value["Std:Join"]
        parts = [filled(part, evaluate) for part in joined["Values"]]
        return str(joined.get("On", "")).join(_text(part) for part in parts)
    return {key: filled(inner, evaluate) for key, inner in value.items()}


def _text(part: object) -> str:
    return part if isinstance(part, str) else json.dumps(part)


def looked_up(expression: dict[str, Any], answers: Mapping[str, Any]) -> object:
    """What a ``Get`` stands for: a member of what describing the job of a step answers.

    Raises:
        UnknownError: it isn't there.
    """
    found: Any = None
    for name, path in references(expression):
        found = answers.get(name)
        for member, key, number in _PART.findall(path):
            found = _inside(found, member or key, number)
            if found is None:
                raise UnknownError(f"{name} has no {path}")
    if found is None:
        raise UnknownError(f"{expression} is not known")
    return found


def _inside(value: Any, name: str, number: str) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list) and number:
        return value[int(number)] if int(number) < len(value) else None
    if isinstance(value, list):
        return next((one for one in value if name in {one.get(key) for key in _NAMED_BY}), None)
    return None


def _refused(message: str) -> Fault:
    return Fault("ValidationException", f"Invalid pipeline definition: {message}")
