"""The pod security standards: what a pod of level ``baseline`` or ``restricted`` may not have.

See https://kubernetes.io/docs/concepts/security/pod-security-standards/; words are those of
``k8s.io/pod-security-admission/policy``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LEVELS = ("baseline", "restricted")
_SAFE_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
_SECCOMP = ("RuntimeDefault", "Localhost")
_SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


class PodStandard:
    """Holds one pod against the standards.

    Args:
        pod: with the pod's metadata; a pod or a template.
        spec: of the pod.
    """

    def __init__(self, pod: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
        self._notes = (pod.get("metadata") or {}).get("annotations") or {}
        self._spec = spec
        self._context = spec.get("securityContext") or {}
        self._containers = [
            one
            for name in ("initContainers", "containers", "ephemeralContainers")
            for one in spec.get(name) or ()
        ]

    def broken(self, level: str) -> list[str]:
        """What of a level a pod breaks, in words; empty for nothing.

        Args:
            level: ``baseline`` or ``restricted``.
        """
        checks: list[Callable[[], Iterator[str]]] = [
            self._host_namespaces,
            self._privileged,
            self._capabilities,
            self._host_paths,
            self._host_ports,
            self._kernel,
        ]
        if level == "restricted":
            checks += [
                self._escalation,
                self._dropped,
                self._volumes,
                self._user,
                self._seccomp,
            ]
        return [told for check in checks for told in check()]

    # ------------------------------------------------------------------------------- baseline

    def _host_namespaces(self) -> Iterator[str]:
        names = [name for name in ("hostNetwork", "hostPID", "hostIPC") if self._spec.get(name)]
        if names:
            yield f"host namespaces ({', '.join(f'{name}=true' for name in names)})"

    def _privileged(self) -> Iterator[str]:
        names = self._where(lambda one: bool(one.get("privileged")))
        if names:
            yield f"privileged ({names} must not set securityContext.privileged=true)"

    def _capabilities(self) -> Iterator[str]:
        names = self._where(lambda one: bool(_added(one) - _SAFE_CAPABILITIES))
        if names:
            added = sorted({cap for one in self._containers for cap in _added(_of(one))})
            shown = ", ".join(f'"{cap}"' for cap in added if cap not in _SAFE_CAPABILITIES)
            yield (
                f"non-default capabilities ({names} must not include {shown} in "
                "securityContext.capabilities.add)"
            )

    def _host_paths(self) -> Iterator[str]:
        names = [one["name"] for one in self._spec.get("volumes") or () if "hostPath" in one]
        if names:
            yield f"hostPath volumes ({_many('volume', names)})"

    def _host_ports(self) -> Iterator[str]:
        ports = {
            one["name"]: [str(p["hostPort"]) for p in one.get("ports") or () if p.get("hostPort")]
            for one in self._containers
        }
        used = {name: found for name, found in ports.items() if found}
        if used:
            shown = ", ".join(sorted(port for found in used.values() for port in found))
            yield f"hostPort ({_many('container', list(used))} uses hostPort {shown})"

    def _kernel(self) -> Iterator[str]:
        sysctls = [one["name"] for one in self._context.get("sysctls") or ()]
        if unsafe := [name for name in sysctls if name not in _SAFE_SYSCTLS]:
            yield f"forbidden sysctls ({', '.join(unsafe)})"
        if names := self._where(lambda one: one.get("procMount", "Default") != "Default"):
            yield f"procMount ({names} must not set securityContext.procMount to anything else)"
        profiles = [_seccomp(one) for one in (self._context, *map(_of, self._containers))]
        if "Unconfined" in profiles:
            yield (
                "seccompProfile (pod or containers must not set securityContext.seccompProfile.type"
                ' to "Unconfined")'
            )
        if any(
            key.startswith(_APPARMOR) and value == "unconfined"
            for key, value in self._notes.items()
        ):
            yield "forbidden AppArmor profile"

    # ----------------------------------------------------------------------------- restricted

    def _escalation(self) -> Iterator[str]:
        names = self._where(lambda one: one.get("allowPrivilegeEscalation") is not False)
        if names:
            yield (
                "allowPrivilegeEscalation != false "
                f"({names} must set securityContext.allowPrivilegeEscalation=false)"
            )

    def _dropped(self) -> Iterator[str]:
        def loose(context: Mapping[str, Any]) -> bool:
            dropped = (context.get("capabilities") or {}).get("drop") or ()
            return "ALL" not in dropped or bool(_added(context) - {"NET_BIND_SERVICE"})

        if names := self._where(loose):
            yield (
                "unrestricted capabilities "
                f'({names} must set securityContext.capabilities.drop=["ALL"])'
            )

    def _volumes(self) -> Iterator[str]:
        found = {
            one["name"]: source
            for one in self._spec.get("volumes") or ()
            for source in one
            if source != "name" and source not in _VOLUMES
        }
        if found:
            kinds = ", ".join(f'"{source}"' for source in sorted(set(found.values())))
            yield (
                f"restricted volume types ({_many('volume', list(found))} uses restricted volume "
                f"type {kinds})"
            )

    def _user(self) -> Iterator[str]:
        whole = self._context.get("runAsNonRoot")
        names = self._where(lambda one: one.get("runAsNonRoot", whole) is not True)
        if names:
            yield (
                f"runAsNonRoot != true (pod or {names} must set securityContext.runAsNonRoot=true)"
            )
        users = [one.get("runAsUser") for one in (self._context, *map(_of, self._containers))]
        if 0 in users:
            yield "runAsUser=0 (pod or containers must not set runAsUser=0)"

    def _seccomp(self) -> Iterator[str]:
        whole = _seccomp(self._context)
        names = self._where(lambda one: (_seccomp(one) or whole) not in _SECCOMP)
        if names:
            yield (
                f"seccompProfile (pod or {names} must set securityContext.seccompProfile.type to "
                '"RuntimeDefault" or "Localhost")'
            )

    # ------------------------------------------------------------------------------------ own

    def _where(self, bad: Callable[[Mapping[str, Any]], bool]) -> str:
        """Containers whose security context is bad, in words; empty for none."""
        names = [one["name"] for one in self._containers if bad(_of(one))]
        return _many("container", names) if names else ""


def _of(container: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = container.get("securityContext") or {}
    return found


def _added(context: Mapping[str, Any]) -> set[str]:
    return set((context.get("capabilities") or {}).get("add") or ())


def _seccomp(context: Mapping[str, Any]) -> str:
    return str((context.get("seccompProfile") or {}).get("type") or "")


def _many(what: str, names: list[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names)
    return f"{what}{'s' if len(names) > 1 else ''} {shown}"
