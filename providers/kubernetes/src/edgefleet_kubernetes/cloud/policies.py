"""ValidatingAdmissionPolicies: what a cluster's own rules, in CEL, let pass.

See https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/ and
apiserver's ``pkg/admission/plugin/policy/validating``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cel

from edgefleet_kubernetes.cloud.api_objects import at, meta, selects
from edgefleet_kubernetes.cloud.api_status import Cause, forbidden, invalid, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store
    from edgefleet_kubernetes.cloud.api_writes import Asked

POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_OWN = "admissionregistration.k8s.io"  # policies aren't held to policies
_ANY = "*"


class Policies:
    """Holds writes against a cluster's policies.

    Args:
        store: of policies and their bindings.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, asked: Asked) -> None:
        """Nothing where no policy denies a write.

        Raises:
            Refused: one denies it; or the write is a policy whose expressions don't compile.
        """
        if asked.kind.group == _OWN:
            if asked.kind.kind == POLICY and asked.object is not None:
                _check_expressions(asked, asked.object)
            return
        with self._store.lock:
            bindings = list(self._store.objects(BINDING).values())
        for binding in bindings:
            policy = self._store.find(POLICY, at(binding, "spec.policyName") or "")
            if policy is not None and self._concerns(asked, policy, binding):
                self._hold(asked, policy, binding)

    def _concerns(self, asked: Asked, policy: Object, binding: Object) -> bool:
        constraints = at(policy, "spec.matchConstraints") or {}
        more = at(binding, "spec.matchResources") or {}
        rules = constraints.get("resourceRules") or ()
        if not any(_covers(rule, asked) for rule in rules):
            return False
        if more.get("resourceRules") and not any(
            _covers(rule, asked) for rule in more["resourceRules"]
        ):
            return False
        return self._selected(asked, constraints) and self._selected(asked, more)

    def _selected(self, asked: Asked, constraints: Mapping[str, Any]) -> bool:
        if any(_covers(rule, asked) for rule in constraints.get("excludeResourceRules") or ()):
            return False
        selector = constraints.get("namespaceSelector")
        if selector and asked.namespace:
            home = self._store.find("Namespace", asked.namespace) or {}
            if not selects(selector, meta(home).get("labels") or {}):
                return False
        selector = constraints.get("objectSelector")
        if not selector:
            return True
        both = (asked.object, asked.old)
        return any(one and selects(selector, meta(one).get("labels") or {}) for one in both)

    def _hold(self, asked: Asked, policy: Object, binding: Object) -> None:
        spec = policy["spec"]
        known = self._variables(asked, binding)
        try:
            for condition in spec.get("matchConditions") or ():
                if not _evaluate(condition["expression"], known):
                    return
            known["variables"] = {}
            for variable in spec.get("variables") or ():
                known["variables"][variable["name"]] = _evaluate(variable["expression"], known)
        except _ERRORS as error:
            self._deny(asked, policy, binding, f"expression resulted in error: {error}")
            return
        for validation in spec.get("validations") or ():
            expression = validation["expression"]
            try:
                if _evaluate(expression, known) is True:
                    continue
                told = validation.get("message") or f"failed expression: {expression}"
                if validation.get("messageExpression"):
                    told = str(_evaluate(validation["messageExpression"], known))
                self._deny(asked, policy, binding, told, validation.get("reason") or "Invalid")
            except _ERRORS as error:
                told = f"expression '{expression}' resulted in error: {error}"
                if spec.get("failurePolicy") != "Ignore":
                    self._deny(asked, policy, binding, told)

    def _variables(self, asked: Asked, binding: Object) -> dict[str, Any]:
        home = self._store.find("Namespace", asked.namespace) if asked.namespace else None
        return {
            "object": asked.object,
            "oldObject": asked.old,
            "namespaceObject": home,
            "params": self._params(asked, binding),
            "request": _request(asked),
        }

    def _params(self, asked: Asked, binding: Object) -> Object | None:
        reference = at(binding, "spec.paramRef")
        if not reference or "name" not in reference:
            return None
        namespace = reference.get("namespace") or asked.namespace
        return self._store.find("ConfigMap", reference["name"], namespace)

    def _deny(
        self,
        asked: Asked,
        policy: Object,
        binding: Object,
        told: str,
        reason: str = "Invalid",
    ) -> None:
        names = meta(policy)["name"], meta(binding)["name"]
        words = f"ValidatingAdmissionPolicy '{names[0]}' with binding '{names[1]}' denied request: "
        actions = at(binding, "spec.validationActions") or ()
        if "Warn" in actions:
            words_of_warning = f"Validation failed for {words.replace(' denied request', '')}"
            asked.how.warn(words_of_warning + told)
        if "Deny" not in actions:
            return
        refused = forbidden(
            asked.kind, asked.name, words + told, [Cause("", words + told, "")], _CODES[reason]
        )
        refused.reason = reason
        raise refused


_ERRORS = (KeyError, IndexError, RuntimeError, TypeError, ValueError)


@lru_cache(maxsize=256)
def _program(expression: str) -> Any:  # noqa: ANN401 - a compiled expression
    return cel.compile(expression)


def _evaluate(expression: str, known: Mapping[str, Any]) -> Any:  # noqa: ANN401 - CEL's
    return _program(expression).execute(dict(known))


def _check_expressions(asked: Asked, policy: Object) -> None:
    causes = []
    for path, expression in _expressions(policy["spec"]):
        try:
            _program(expression)
        except ValueError as error:
            told = f"compilation failed: {str(error).splitlines()[0]}"
            causes.append(wrong(path, expression, told))
    if causes:
        raise invalid(asked.kind, asked.name, causes)


def _expressions(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("matchConditions", "variables", "validations"):
        for number, one in enumerate(spec.get(name) or ()):
            yield f"spec.{name}[{number}].expression", one["expression"]
            if one.get("messageExpression"):
                yield f"spec.{name}[{number}].messageExpression", one["messageExpression"]


def _covers(rule: Mapping[str, Any], asked: Asked) -> bool:
    kind, sub = asked.kind, asked.how.subresource
    scope = rule.get("scope", _ANY)
    if scope != _ANY and (scope == "Namespaced") is not kind.namespaced:
        return False
    names = rule.get("resourceNames") or ()
    return (
        _in(asked.operation, rule.get("operations"))
        and _in(kind.group, rule.get("apiGroups"))
        and _in(kind.version, rule.get("apiVersions"))
        and any(_is(one, kind.plural, sub) for one in rule.get("resources") or ())
        and (not names or asked.name in names)
    )


def _in(value: str, known: Sequence[str] | None) -> bool:
    return _ANY in (known or ()) or value in (known or ())


def _is(named: str, plural: str, sub: str) -> bool:
    """Whether ``pods``, ``pods/status``, ``pods/*``, ``*`` or ``*/*`` names a resource."""
    resource, _, below = named.partition("/")
    return resource in {_ANY, plural} and below in ({sub, _ANY} if sub else {"", _ANY})


def _request(asked: Asked) -> dict[str, Any]:
    kind = asked.kind
    of = {"group": kind.group, "version": kind.version}
    return {
        "kind": {**of, "kind": kind.kind},
        "resource": {**of, "resource": kind.plural},
        "subResource": asked.how.subresource,
        "name": asked.name,
        "namespace": asked.namespace,
        "operation": asked.operation,
        "userInfo": asked.how.user.info,
        "dryRun": asked.how.dry_run,
    }
