"""Role-based access control: who may do what, by roles and bindings in the store.

Words are those of apiserver's ``pkg/endpoints/handlers/responsewriters`` and of kubernetes'
``pkg/registry/rbac``: nobody gives away rights that they don't have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_objects import meta
from edgefleet_kubernetes.cloud.api_status import Refused, forbidden
from edgefleet_kubernetes.cloud.api_users import MASTERS, User

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgefleet_kubernetes.cloud.api_calls import ApiCall, Target
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store
    from edgefleet_kubernetes.cloud.api_writes import Asked

Rule = dict[str, Any]
_ROLES = ("Role", "ClusterRole")
_BINDINGS = ("RoleBinding", "ClusterRoleBinding")


@dataclass(frozen=True)
class Deed:
    """Something that somebody may do or not.

    Attributes:
        verb: such as ``get``.
        group: of the API; empty for the core.
        resource: such as ``pods/log``.
        namespace: empty for the whole cluster.
        name: of one object; empty for any.
    """

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


class Rbac:
    """Says who may do what.

    Args:
        store: of roles and bindings.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, user: User, target: Target | None, path: str) -> None:
        """Nothing where a user may make a request.

        Args:
            user: whoever calls.
            target: what the request is for; None for what is no object.
            path: of its address.

        Raises:
            Refused: they may not (403).
        """
        if MASTERS in user.groups:
            return
        if target is None:
            if not any(_allows_path(rule, path) for rule in self._rules(user, "")):
                told = f'forbidden: User "{user.name}" cannot get path "{path}"'
                raise Refused(403, "Forbidden", told, details={})
            return
        kind = target.kind
        deed = Deed(target.verb, kind.group, target.resource, target.namespace, target.name)
        if not self.may(user, deed):
            where = (
                f'in the namespace "{deed.namespace}"'
                if deed.namespace
                else ("at the cluster scope")
            )
            raise forbidden(
                kind,
                target.name,
                f'User "{user.name}" cannot {deed.verb} resource "{deed.resource}" in API group '
                f'"{deed.group}" {where}',
            )

    def may(self, user: User, deed: Deed) -> bool:
        """Whether a user may do something."""
        if MASTERS in user.groups:
            return True
        return any(_allows(rule, deed) for rule in self._rules(user, deed.namespace))

    def review_self(self, call: ApiCall, _target: Target) -> Object:
        """Answer a SelfSubjectAccessReview: ``kubectl auth can-i``."""
        document = call.document()
        return self._reviewed(document, call.user)

    def review(self, call: ApiCall, _target: Target) -> Object:
        """Answer a SubjectAccessReview, which asks of somebody else."""
        document = call.document()
        spec = document.get("spec") or {}
        return self._reviewed(document, User(spec.get("user", ""), tuple(spec.get("groups") or ())))

    def no_escalation(self, asked: Asked) -> None:
        """Nothing where a role or binding gives no more than its writer has.

        Raises:
            Refused: it does (403).
        """
        user, new = asked.how.user, asked.object
        if new is None or MASTERS in user.groups:
            return
        kind = asked.kind.kind
        if kind in _ROLES:
            given = new.get("rules") or []
        elif kind in _BINDINGS:
            given = self._role_rules(new["roleRef"], asked.namespace)
        else:
            return
        if asked.old is not None and asked.old.get("rules") == new.get("rules") and kind in _ROLES:
            return
        lacking = [
            rule
            for rule in given
            if not all(self.may(user, deed) for deed in _deeds(rule, asked.namespace))
        ]
        if lacking and not self._may_anyway(user, asked):
            told = "\n".join(_shown(rule) for rule in lacking)
            groups = " ".join(f'"{group}"' for group in user.groups)
            raise forbidden(
                asked.kind,
                asked.name,
                f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions '
                f"not currently held:\n{told}",
            )

    # ------------------------------------------------------------------------------------ own

    def _may_anyway(self, user: User, asked: Asked) -> bool:
        verb = "escalate" if asked.kind.kind in _ROLES else "bind"
        kind, name = asked.kind, asked.name
        if verb == "bind" and asked.object is not None:
            reference = asked.object["roleRef"]
            kind, name = self._store.kinds.named(reference["kind"]), reference["name"]
        return self.may(user, Deed(verb, kind.group, kind.plural, asked.namespace, name))

    def _reviewed(self, document: Object, user: User) -> Object:
        spec = document.get("spec") or {}
        asked = spec.get("resourceAttributes")
        if asked is None:
            path = (spec.get("nonResourceAttributes") or {}).get("path", "")
            allowed = MASTERS in user.groups or any(
                _allows_path(rule, path) for rule in self._rules(user, "")
            )
        else:
            resource, sub = asked.get("resource", ""), asked.get("subresource")
            deed = Deed(
                asked.get("verb", ""),
                asked.get("group", ""),
                f"{resource}/{sub}" if sub else resource,
                asked.get("namespace", ""),
                asked.get("name", ""),
            )
            allowed = self.may(user, deed)
        return {**document, "metadata": {}, "status": {"allowed": allowed}}

    def _rules(self, user: User, namespace: str) -> Iterator[Rule]:
        """Rules of every role that a user has there."""
        with self._store.lock:
            bindings = list(self._store.objects("ClusterRoleBinding").values())
            if namespace:
                bindings += [
                    one
                    for place, one in self._store.objects("RoleBinding").items()
                    if place[0] == namespace
                ]
        for binding in bindings:
            if any(_is(subject, user) for subject in binding.get("subjects") or ()):
                yield from self._role_rules(
                    binding["roleRef"], meta(binding).get("namespace") or ""
                )

    def _role_rules(self, reference: Mapping[str, str], namespace: str) -> Sequence[Rule]:
        where = namespace if reference["kind"] == "Role" else ""
        with self._store.lock:
            found = self._store.objects(reference["kind"]).get((where, reference["name"]))
        return () if found is None else found.get("rules") or ()


def _is(subject: Mapping[str, str], user: User) -> bool:
    if subject["kind"] == "User":
        return subject["name"] == user.name
    if subject["kind"] == "Group":
        return subject["name"] in user.groups
    return user.name == f"system:serviceaccount:{subject.get('namespace')}:{subject['name']}"


def _has(values: Sequence[str] | None, wanted: str) -> bool:
    return "*" in (values or ()) or wanted in (values or ())


def _allows(rule: Rule, deed: Deed) -> bool:
    if not _has(rule.get("verbs"), deed.verb) or not _has(rule.get("apiGroups"), deed.group):
        return False
    resources = rule.get("resources") or ()
    sub = deed.resource.partition("/")[2]
    if not _has(resources, deed.resource) and not (sub and f"*/{sub}" in resources):
        return False
    names = rule.get("resourceNames") or ()
    return not names or deed.name in names


def _allows_path(rule: Rule, path: str) -> bool:
    if not _has(rule.get("verbs"), "get"):
        return False
    return any(
        one == path or (one.endswith("*") and path.startswith(one[:-1]))
        for one in rule.get("nonResourceURLs") or ()
    )


def _deeds(rule: Rule, namespace: str) -> Iterator[Deed]:
    for verb in rule.get("verbs") or ():
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                for name in rule.get("resourceNames") or ("",):
                    yield Deed(verb, group, resource, namespace, name)


def _shown(rule: Rule) -> str:
    parts = []
    for key, title in (
        ("apiGroups", "APIGroups"),
        ("resources", "Resources"),
        ("resourceNames", "ResourceNames"),
        ("verbs", "Verbs"),
    ):
        if rule.get(key):
            values = " ".join(f'"{value}"' for value in rule[key])
            parts.append(f"{title}:[{values}]")
    return "{" + ", ".join(parts) + "}"
