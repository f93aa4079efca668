"""Whether a request to Blob storage may: tokens, account keys, shared access signatures.

Strings to sign as documented in
https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key,
https://learn.microsoft.com/rest/api/storageservices/create-service-sas and
https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas. Rules kept here:

- The signature is looked at first, and nothing of a SAS counts before it is right.
- A SAS of a stored access policy ends when the policy is gone, and what one of the two says the
  other may not say again.
- A user delegation SAS allows no more than its user's roles do at the time of the call.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.testing.cloud.calls import Refused
from edgefleet_azure.cloud.calls import Call

if TYPE_CHECKING:
    from edgefleet_azure.cloud.accounts import StorageAccount
    from edgefleet_azure.cloud.identity import Identities

OLDEST = "2020-12-06"  # of a SAS that the mock reads
_BOUND_TO_USER = "2025-07-05"  # the first version whose delegation SAS may name its user
_BOUND_TO_REQUEST = "2026-04-06"  # the first that may name headers and parameters
_RESPONSE = ("rscc", "rscd", "rsce", "rscl", "rsct")
_FIELDS = ("sp", "st", "se", "sr", "si", "sip", "spr", "skoid", "skt", "ske")
AUDIENCE = "https://storage.azure.com"


@dataclass(frozen=True)
class Need:
    """What a call needs to be allowed.

    Attributes:
        letters: permissions of a SAS, of which one is enough; empty where no SAS is.
        action: of a role.
        data: whether the action is one on data.
        container: that is called; empty for the account.
        blob: that is called; for a listing its prefix.
        listing: whether it is a listing.
    """

    letters: str
    action: str
    data: bool = True
    container: str = ""
    blob: str = ""
    listing: bool = False


class Door:
    """Lets calls in.

    Args:
        account: that is called.
        identities: who may call by a token.
    """

    def __init__(self, account: StorageAccount, identities: Identities) -> None:
        self._account, self._identities = account, identities

    def admit(self, call: Call, need: Need) -> str:
        """Let a call in.

        Returns:
            The letters that a SAS gives; every letter for a token and an account key.

        Raises:
            Refused: it may not.
        """
        scheme = call.headers.get("authorization", "").partition(" ")[0].lower()
        if scheme == "bearer":
            self._by_token(call, need)
        elif scheme == "sharedkey":
            self._by_key(call)
        elif "sig" in call.query:
            return self._by_sas(call, need)
        elif not self._is_public(need):
            raise Refused(
                401,
                "NoAuthenticationInformation",
                "Server failed to authenticate the request. Please refer to the information in "
                "the www-authenticate header.",
                headers={"WWW-Authenticate": f"Bearer resource_id={AUDIENCE}"},
            )
        return "racwdl"

    def delegation_key(self, oid: str, start: str, expiry: str, version: str) -> str:
        """The key that a user's delegation SAS are signed with, in base64."""
        named = f"{oid}\n{start}\n{expiry}\n{version}".encode()
        key = base64.b64decode(self._account.keys[0])
        return base64.b64encode(hmac.new(key, named, hashlib.sha256).digest()).decode()

    def _is_public(self, need: Need) -> bool:
        container = self._account.containers.get(need.container)
        if container is None or need.letters not in {"r", "l"}:
            return False
        return container.public == "container" or (container.public == "blob" and not need.listing)

    def _scope(self, need: Need) -> str:
        account = self._account.resource
        if not need.container:
            return account
        return f"{account}/blobServices/default/containers/{need.container}"

    def _by_token(self, call: Call, need: Need) -> None:
        if call.headers.get("x-ms-version", "") < "2017-11-09":
            raise _failed("Authentication scheme Bearer is not supported in this version.")
        try:
            call.principal = self._identities.holder(call, (AUDIENCE, call.base))
        except Refused as refused:
            raise Refused(
                401,
                "InvalidAuthenticationInfo",
                "Server failed to authenticate the request. Please refer to the information in "
                "the www-authenticate header.",
                headers=refused.headers,
                detail={"AuthenticationErrorDetail": refused.message},
            ) from refused
        if not call.principal.may(need.action, self._scope(need), data=need.data):
            raise _not_permitted()

    def _by_key(self, call: Call) -> None:
        _, _, credential = call.headers["authorization"].partition(" ")
        account, _, signature = credential.partition(":")
        signed = _shared_key_text(call, account)
        if account != self._account.name or not any(
            hmac.compare_digest(_mac(key, signed), signature) for key in self._account.keys
        ):
            raise _failed(
                f"The MAC signature found in the HTTP request '{signature}' is not the "
                "same as any computed signature."
            )

    def _by_sas(self, call: Call, need: Need) -> str:
        sas = {name: call.query.get(name, "") for name in _FIELDS}
        resource = self._resource(sas["sr"], call.query.get("sdd", ""), need)
        self._check_signature(call.query, resource)
        if sas["skoid"]:
            self._in_time(sas["skt"], sas["ske"])
        elif sas["si"]:
            sas = self._with_policy(sas, need.container)
        if not sas["se"] or not sas["sp"]:
            raise _failed("Access without expiry or permission.")
        self._in_time(sas["st"], sas["se"])
        _check_way(call, sas)
        if not set(need.letters) & set(sas["sp"]) or (need.listing and sas["sr"] == "b"):
            raise _not_permitted()
        if sas["skoid"]:
            user = self._identities.get(sas["skoid"])
            if user is None or not user.may(need.action, self._scope(need), data=need.data):
                raise _not_permitted()
        return sas["sp"]

    def _check_signature(self, query: dict[str, str], resource: str) -> None:
        if query.get("sv", "") < OLDEST:
            raise _failed(f"The mock reads no SAS of a version before {OLDEST}.")
        if query.get("srh") or query.get("srq"):
            raise _failed("The mock reads no SAS that is bound to headers or parameters.")
        if "skoid" in query:
            named = [query.get(name, "") for name in ("skoid", "skt", "ske", "skv")]
            signed, keys = _delegation_text(query, resource), [self.delegation_key(*named)]
        else:
            signed, keys = _service_text(query, resource), self._account.keys
        if not any(hmac.compare_digest(_mac(key, signed), query["sig"]) for key in keys):
            raise _failed(f"Signature did not match. String to sign used was {signed}")

    def _resource(self, kind: str, depth: str, need: Need) -> str:
        """What a SAS of that kind must have been signed for to allow this call."""
        place = f"/blob/{self._account.name}/{need.container}"
        if kind == "c":
            return place
        if kind == "d":
            levels = need.blob.split("/")
            if not self._account.hierarchical:
                raise _failed("sr=d needs a storage account with a hierarchical namespace.")
            if not depth.isdigit() or int(depth) > len(levels):
                raise _failed("sdd is mandatory, and no deeper than the path.")
            return "/".join([place, *levels[: int(depth)]])
        if kind == "b":
            return f"{place}/{need.blob}"
        raise _failed(f"sr={kind} is not known.")

    def _with_policy(self, sas: dict[str, str], container: str) -> dict[str, str]:
        found = self._account.containers.get(container)
        policy = None if found is None else found.policies.get(sas["si"])
        if policy is None:
            raise _failed("SAS identifier cannot be found for specified signed identifier")
        said = {"st": policy.start, "se": policy.expiry, "sp": policy.permission}
        for name, value in said.items():
            if value and sas[name]:
                raise Refused(
                    400,
                    "InvalidQueryParameterValue",
                    "Value for one of the query parameters specified in the request URI is "
                    "invalid.",
                    detail={"QueryParameterName": name},
                )
        return {**sas, **{name: value or sas[name] for name, value in said.items()}}

    def _in_time(self, start: str, expiry: str) -> None:
        now = datetime.fromtimestamp(self._account.clock(), UTC)
        first = _time(start) if start else now
        if not first <= now < _time(expiry):
            raise _failed(
                "Signature not valid in the specified time frame: "
                f"Start [{start}] - Expiry [{expiry}] - Current [{now:%a, %d %b %Y %H:%M:%S GMT}]"
            )


def _failed(detail: str) -> Refused:
    return Refused(
        403,
        "AuthenticationFailed",
        "Server failed to authenticate the request. Make sure the value of Authorization header "
        "is formed correctly including the signature.",
        detail={"AuthenticationErrorDetail": detail},
    )


def _not_permitted() -> Refused:
    return Refused(
        403,
        "AuthorizationPermissionMismatch",
        "This request is not authorized to perform this operation using this permission.",
    )


def _mac(key: str, text: str) -> str:
    digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise _failed(f"{text!r} is no time.") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _check_way(call: Call, sas: dict[str, str]) -> None:
    """Nothing where a call comes from where, and by the protocol, that its SAS allows."""
    if sas["spr"] == "https" and urlsplit(call.base).scheme != "https":
        raise Refused(
            403,
            "AuthorizationProtocolMismatch",
            "This request is not authorized to perform this operation using this protocol.",
        )
    if sas["sip"] and not _among(str(call.environ.get("REMOTE_ADDR", "")), sas["sip"]):
        raise Refused(
            403,
            "AuthorizationSourceIPMismatch",
            "This request is not authorized to perform this operation using this source IP.",
        )


def _among(address: str, allowed: str) -> bool:
    first, _, last = allowed.partition("-")
    return ip_address(first) <= ip_address(address) <= ip_address(last or first)  # type: ignore[operator]  # one family


def _service_text(query: dict[str, str], resource: str) -> str:
    head = [query.get(name, "") for name in ("sp", "st", "se")]
    tail = [query.get(name, "") for name in ("si", "sip", "spr", "sv", "sr", "snapshot", "ses")]
    return "\n".join([*head, resource, *tail, *(query.get(name, "") for name in _RESPONSE)])


def _delegation_text(query: dict[str, str], resource: str) -> str:
    def values(*names: str) -> list[str]:
        return [query.get(name, "") for name in names]

    version = query["sv"]
    text = [*values("sp", "st", "se"), resource]
    text += values("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid")
    if version >= _BOUND_TO_USER:
        text += values("skdutid", "sduoid")
    text += values("sip", "spr", "sv", "sr", "snapshot", "ses")
    if version >= _BOUND_TO_REQUEST:
        text += ["", ""]
    return "\n".join([*text, *values(*_RESPONSE)])


def _shared_key_text(call: Call, account: str) -> str:
    headers = call.headers
    length = headers.get("content-length", "")
    lines = [
        call.method,
        headers.get("content-encoding", ""),
        headers.get("content-language", ""),
        "" if length == "0" else length,
        headers.get("content-md5", ""),
        headers.get("content-type", ""),
        "" if "x-ms-date" in headers else headers.get("date", ""),
        headers.get("if-modified-since", ""),
        headers.get("if-match", ""),
        headers.get("if-none-match", ""),
        headers.get("if-unmodified-since", ""),
        headers.get("range", ""),
    ]
    lines += [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
    raw = str(call.environ.get("RAW_URI", call.path)).partition("?")[0]
    lines.append(f"/{account}{raw}")
    lines += [f"{name}:{call.query[name]}" for name in sorted(call.query)]
    return "\n".join(lines)
