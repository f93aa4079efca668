"""What stands against a telemetry policy, said before anything is sent, and again on a device.

The one place for these checks: the SDK asks here for `Fleet.record`, for whole releases and for
profiles, a device before it takes a release. Nothing here looks at the network or the disk.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.errors import InvalidInputError, MissingExtraError
from edgefleet.protocol.expression import ANSWER, PREDICTION, READING, SPAN, compile_condition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from edgefleet.protocol.expression import Scope
    from edgefleet.protocol.policy import (
        Action,
        AlarmRule,
        CaptureRule,
        Filter,
        TelemetryPolicy,
        WindowRule,
    )

HOOKS = ("blur", "drop", "noise", "pixelate")
"""Hooks that every device has, written ``NAME`` or ``NAME:NUMBER``; a name with a dot is one that
the device itself registers."""
MIN_WINDOW_S, MAX_WINDOW_S = 0.01, 7 * 86_400.0
MAX_SPAN_S = 86_400.0
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
ACTION_NAME = re.compile(r"[a-z0-9][a-z0-9._\-]{0,62}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,127}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_TOPIC = re.compile(r"[^#+\x00\s]{1,256}")


def problems_of(policy: TelemetryPolicy, models: Collection[str] | None = None) -> tuple[str, ...]:
    """What is wrong with a policy, each with its place and cure; empty where nothing is.

    Args:
        policy: to be checked.
        models: names of the release's models; None where no release is known yet.

    Raises:
        MissingExtraError: it holds conditions, and the library for them isn't installed.
    """
    return tuple(
        f"{problem.message} (cure: {problem.cure})" if problem.cure else problem.message
        for problem in _problems(policy, models)
    )


def check_policy(policy: TelemetryPolicy, models: Collection[str] | None = None) -> None:
    """Refuse a policy in which something is wrong; as `problems_of`.

    Raises:
        InvalidInputError: something is; the message tells all of it.
        MissingExtraError: it holds conditions, and the library for them isn't installed.
    """
    found = list(_problems(policy, models))
    if len(found) == 1:
        raise found[0]
    if found:
        listed = "\n".join(
            f"- {problem.message}\n  {problem.cure or ''}".rstrip() for problem in found
        )
        raise InvalidInputError(
            f"the telemetry policy has {len(found)} problems:\n{listed}", cure="mend each of them"
        )


def target_problem(action: Action) -> str:
    """What no device can do with an action's target; empty where nothing stands against it."""
    kind, target = action.kind, action.target
    if kind == "run" and not ACTION_NAME.fullmatch(target):
        return "an action's name is made of a-z, 0-9, '.', '_' and '-'"
    if kind == "file" and not FILE_NAME.fullmatch(target):
        return "a file's name has no folder, and begins with a letter or digit"
    return _address_problem(kind, target) if kind in {"webhook", "mqtt"} else ""


def _address_problem(kind: str, target: str) -> str:
    try:
        address = urlsplit(target)
        host, _ = address.hostname, address.port
    except ValueError:
        return "the address is malformed"
    if not host or address.username is not None or "#" in target:
        return "an address has a host, and no user, password or fragment"
    if kind == "webhook":
        return "" if address.scheme in {"http", "https"} else "a webhook's address is http or https"
    if address.scheme != "mqtt" or address.query or not _TOPIC.fullmatch(address.path[1:]):
        return "write mqtt://HOST:PORT/TOPIC, without wildcards"
    return ""


def overlap(one: str, other: str) -> bool:
    """Whether an input may fall under both patterns."""
    return fnmatchcase(one, other) or fnmatchcase(other, one)


def _problems(
    policy: TelemetryPolicy, models: Collection[str] | None
) -> Iterator[InvalidInputError]:
    yield from _names(policy, models)
    for each in policy.filters:
        yield from _filter(each)
    for window in policy.windows:
        yield from _window(window)
    for alarm in policy.alarms:
        yield from _alarm(alarm)
    for capture in policy.captures:
        yield from _capture(capture, policy, models)
    yield from _privacy(policy)
    for number, span in enumerate(policy.sync.spans):
        if span.start == span.end:
            yield _problem(
                f"sync.spans[{number}]", "it ends where it starts", "leave it out to send always"
            )


def _names(policy: TelemetryPolicy, models: Collection[str] | None) -> Iterator[InvalidInputError]:
    rules: tuple[tuple[str, Iterable[Filter | WindowRule | AlarmRule | CaptureRule]], ...] = (
        ("filters", policy.filters),
        ("windows", policy.windows),
        ("alarms", policy.alarms),
        ("captures", policy.captures),
    )
    for kind, several in rules:
        seen: set[str] = set()
        for rule in several:
            where = f"{kind}.{rule.name}"
            if rule.name in seen:
                yield _problem(where, "another rule has this name", "give each a name of its own")
            seen.add(rule.name)
            if rule.model is not None and models is not None and rule.model not in models:
                there = ", ".join(sorted(models)) or "none"
                yield _problem(
                    where, f"there is no model {rule.model!r} in the release", f"it has: {there}"
                )


def _filter(rule: Filter) -> Iterator[InvalidInputError]:
    where = f"filters.{rule.name}"
    if rule.model is not None and rule.stream is not None:
        yield _both(where)
    yield from _condition(f"{where}.when", rule.when, READING if rule.stream else ANSWER)


def _window(rule: WindowRule) -> Iterator[InvalidInputError]:
    where = f"windows.{rule.name}"
    if (rule.model is None) == (rule.stream is None):
        yield _both(where)
    if not MIN_WINDOW_S <= rule.size_s <= MAX_WINDOW_S:
        yield _problem(
            f"{where}.size_s",
            f"{rule.size_s:g} s is no length of a window",
            f"give {MIN_WINDOW_S:g} to {MAX_WINDOW_S:g}",
        )
    if not all(map(isfinite, rule.edges)) or any(a >= b for a, b in pairwise(rule.edges)):
        yield _problem(f"{where}.edges", "edges ascend", "sort them, each once")
    yield from _condition(f"{where}.when", rule.when, READING if rule.stream else ANSWER)


def _alarm(rule: AlarmRule) -> Iterator[InvalidInputError]:
    where = f"alarms.{rule.name}"
    if (rule.model is None) == (rule.stream is None):
        yield _both(where)
    if rule.needs > rule.within:
        yield _problem(
            f"{where}.needs",
            f"{rule.needs} of the last {rule.within} can't hold",
            "let needs be at most within",
        )
    scope = READING if rule.stream else PREDICTION
    if rule.over_s is not None:
        scope = SPAN
        if rule.over_s > MAX_SPAN_S:
            yield _problem(
                f"{where}.over_s", f"{rule.over_s:g} s is too long", f"give at most {MAX_SPAN_S:g}"
            )
        if rule.within > 1:
            yield _problem(
                f"{where}.within",
                "a span is looked at as a whole",
                "leave out needs and within, or over_s",
            )
    yield from _condition(f"{where}.when", rule.when, scope)
    yield from _condition(f"{where}.clear", rule.clear, scope)
    for name in PLACEHOLDER.findall(rule.message):
        if name.partition(".")[0] not in {*scope.examples, "rule", "model", "stream", "key"}:
            yield _problem(
                f"{where}.message",
                f"there is no {{{name}}} in {scope.about}",
                f"name one of: rule, {', '.join(scope.examples)}",
            )
    for number, action in enumerate(rule.actions):
        wrong = target_problem(action)
        if wrong:
            yield _problem(f"{where}.actions[{number}]", f"target {action.target[:80]!r}", wrong)


def _capture(
    rule: CaptureRule, policy: TelemetryPolicy, models: Collection[str] | None
) -> Iterator[InvalidInputError]:
    where = f"captures.{rule.name}"
    yield from _condition(f"{where}.when", rule.when, PREDICTION)
    alarms = [alarm.name for alarm in policy.alarms]
    if rule.alarm is not None and rule.alarm not in alarms:
        there = ", ".join(alarms) or "none"
        yield _problem(
            f"{where}.alarm", f"there is no alarm {rule.alarm!r}", f"alarms are: {there}"
        )
    if rule.alarm is None and (rule.before or rule.after):
        yield _problem(
            f"{where}.before", "before and after are around an alarm", "name it with alarm"
        )
    if not rule.inputs:
        return
    concerned = [rule.model] if rule.model else sorted(models or ())
    bare = [m for m in concerned if not any(_of_model(each, m) for each in policy.inputs)]
    if bare or not policy.inputs:
        names = ", ".join(bare) or "every model"
        yield _problem(
            f"{where}.inputs",
            f"it would ship inputs of {names}, which privacy forbids: the policy names none",
            f'add to inputs what may leave the device, such as "{(bare or ["MODEL"])[0]}/INPUT"',
        )


def _privacy(policy: TelemetryPolicy) -> Iterator[InvalidInputError]:
    for pattern, hooks in policy.redact.items():
        where = f"redact.{pattern}"
        if not any(overlap(pattern, allowed) for allowed in policy.inputs):
            yield _problem(
                where,
                "no input that may be kept falls under it",
                "name the same input in inputs, or leave it out: what isn't named isn't kept",
            )
        for hook in hooks:
            name, colon, number = hook.partition(":")
            if colon and not _NUMBER.fullmatch(number):
                yield _problem(where, f"{number!r} is no number", "write HOOK or HOOK:NUMBER")
            if name not in HOOKS and "." not in name:
                yield _problem(
                    where,
                    f"there is no hook {name!r}",
                    f"hooks are: {', '.join(HOOKS)}; those of the device have a dot in their name",
                )


def _of_model(pattern: str, model: str) -> bool:
    return fnmatchcase(model, pattern.rpartition("/")[0]) or fnmatchcase(f"{model}/x", pattern)


def _condition(where: str, text: str, scope: Scope) -> Iterator[InvalidInputError]:
    if not text:
        return
    try:
        compile_condition(text, scope)
    except MissingExtraError:
        raise
    except InvalidInputError as error:
        error.prefixed(where)
        yield error


def _both(where: str) -> InvalidInputError:
    return _problem(where, "it looks at a model's predictions or at a stream", "name one of them")


def _problem(where: str, message: str, cure: str) -> InvalidInputError:
    return InvalidInputError(f"{where}: {message}", cure=cure)
