"""botocore's service models as a judge: what AWS would refuse is refused here.

botocore itself checks names, types and minima before it sends; enums, patterns and maxima it leaves
to the service. Those stand in the same model, and are checked here too, on requests and answers.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import botocore
from botocore.session import get_session
from botocore.validate import ParamValidator, ValidationErrors

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD = "edgefleet-held-to-model"  # marks our handlers, so that none is there twice
_MARKS = {"enum", "pattern", "max"}
# What Java's expressions have and Python's haven't: Unicode categories, POSIX classes, an end
# anchor with a count, a range from a class, characters written as two surrogates.
_CATEGORY = re.compile(r"\\p\{([A-Z])[a-z]?\}")
_RESPELLED = (
    (r"\p{Alnum}", "a-zA-Z0-9"),
    (r"\p{Upper}", "A-Z"),
    (r"\p{Digit}", "0-9"),
    (r"\p{Graph}", r"\x21-\x7e"),
    (r"\p{Cntrl}", r"\x00-\x1f\x7f"),
    (r"\w-_", r"\w\-"),
    (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF"),
)
_COUNTED_END = re.compile(r"\$\{\d+,\d+\}")
# Texts of answers that botocore has made objects of before anybody sees them.
_DECODED = {"TemplateBody", "policyDocumentType"}


class ModelError(ValueError):
    """A request or an answer that isn't what the vendor's model says."""


class _Findings(ValidationErrors):  # type: ignore[misc]  # botocore has no types
    def _format_error(self, error: tuple[str, str, dict[str, Any]]) -> str:
        reason, name, more = error
        if reason in _MARKS:
            return f"Value at {self._get_name(name)} fails the {reason} {more['limit']}"
        text: str = super()._format_error(error)
        return text


class StrictValidator(ParamValidator):  # type: ignore[misc]
    """botocore's validator, with enums, patterns and maxima."""

    VALIDATED_METADATA_ATTRS = ParamValidator.VALIDATED_METADATA_ATTRS | _MARKS

    def validate(self, params: object, shape: Any) -> _Findings:  # noqa: ANN401
        findings = _Findings()
        self._validate(params, shape, findings, name="")
        return findings

    def _validate_string(self, param: object, shape: Any, errors: Any, name: str) -> None:  # noqa: ANN401
        if isinstance(param, dict) and shape.name in _DECODED:
            return
        super()._validate_string(param, shape, errors, name)
        if not isinstance(param, str):
            return
        self._limit(len(param), shape, errors, name)
        if shape.enum and param not in shape.enum:
            errors.report(name, "enum", limit=", ".join(shape.enum[:20]))
        pattern = shape.metadata.get("pattern")
        if pattern is not None and not compiled(pattern).fullmatch(param):
            errors.report(name, "pattern", limit=pattern)

    def _validate_list(self, param: object, shape: Any, errors: Any, name: str) -> None:  # noqa: ANN401
        super()._validate_list(param, shape, errors, name)
        if isinstance(param, list | tuple):
            self._limit(len(param), shape, errors, name)

    def _validate_map(self, param: object, shape: Any, errors: Any, name: str) -> None:  # noqa: ANN401
        super()._validate_map(param, shape, errors, name)
        if isinstance(param, dict):
            self._limit(len(param), shape, errors, name)

    def _validate_integer(self, param: object, shape: Any, errors: Any, name: str) -> None:  # noqa: ANN401
        super()._validate_integer(param, shape, errors, name)
        if isinstance(param, int):
            self._limit(param, shape, errors, name)

    _validate_long = _validate_integer

    @staticmethod
    def _limit(value: int, shape: Any, errors: Any, name: str) -> None:  # noqa: ANN401
        limit = shape.metadata.get("max")
        if limit is not None and value > limit:
            errors.report(name, "max", limit=limit)


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of a service model as Python writes it."""
    spelled = _CATEGORY.sub(lambda found: _characters()[found.group(1)], pattern)
    for theirs, ours in _RESPELLED:
        spelled = spelled.replace(theirs, ours)
    return re.compile(_COUNTED_END.sub("", spelled))


@functools.cache
def _characters() -> dict[str, str]:
    """First letter of a Unicode category -> its characters, as ranges for inside of brackets."""
    ranges: dict[str, list[str]] = {}
    start, current = 0, "C"
    for number in range(sys.maxunicode + 2):
        here = unicodedata.category(chr(number))[0] if number <= sys.maxunicode else ""
        if here != current:
            if number > start:
                ends = f"\\U{start:08x}-\\U{number - 1:08x}"
                ranges.setdefault(current, []).append(ends)
            start, current = number, here
    return {letter: "".join(parts) for letter, parts in ranges.items()}


@functools.cache
def service_model(service: str) -> Any:  # noqa: ANN401 - botocore has no types
    """Botocore's model of a service by boto3's name for it."""
    return get_session().get_service_model(service)


def check_request(operation: Any, request: object) -> None:  # noqa: ANN401
    """Raise `ModelError` where a request isn't what the operation's model says."""
    _check(operation.input_shape, request, f"request of {operation.name}")


def check_answer(operation: Any, answer: object) -> None:  # noqa: ANN401
    """Raise `ModelError` where an answer isn't what the operation's model says."""
    _check(operation.output_shape, answer, f"answer of {operation.name}")


def _check(shape: Any, value: object, what: str) -> None:  # noqa: ANN401
    if shape is None:
        return
    findings = StrictValidator().validate(value, shape)
    if findings.has_errors():
        raise ModelError(f"{what}: {findings.generate_report()}")


def hold_to_model(client: Any) -> None:  # noqa: ANN401
    """Check every request and answer of a boto3 client from now on, whatever serves it."""
    _hold(client.meta.events)


def release(client: Any) -> None:  # noqa: ANN401
    """Let a client that is held to the model send and take anything."""
    for event in ("before-parameter-build", "after-call"):
        client.meta.events.unregister(event, unique_id=HELD)


@contextmanager
def all_held_to_model() -> Iterator[None]:
    """Hold the clients of every botocore session that is made while the block runs."""
    botocore.register_initializer(_hold)
    try:
        yield
    finally:
        botocore.unregister_initializer(_hold)


def _hold(emitter: Any) -> None:  # noqa: ANN401 - a client's events, or a session, for its clients
    emitter.register("before-parameter-build", _before, unique_id=HELD)
    emitter.register("after-call", _after, unique_id=HELD)


def _before(params: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401
    check_request(model, params)


def _after(http_response: Any, parsed: dict[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401
    if http_response.status_code < 300:
        answer = {key: value for key, value in parsed.items() if key != "ResponseMetadata"}
        check_answer(model, answer)
