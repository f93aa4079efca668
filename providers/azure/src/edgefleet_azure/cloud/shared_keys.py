"""Whether a shared access signature of Event Hubs or IoT Hub was made with one of a few keys.

``docs``: https://learn.microsoft.com/azure/event-hubs/authenticate-shared-access-signature
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote_plus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PREFIX = "SharedAccessSignature "


def key_check(
    keys: Mapping[str, str], *, clock: Callable[[], float] = time.time
) -> Callable[[str], bool]:
    """A judge of tokens: good are those of a policy's key that haven't ended.

    Args:
        keys: a key of each policy, by the policy's name.
        clock: the time, in seconds since 1970.
    """

    def good(token: str) -> bool:
        fields = {name: values[0] for name, values in parse_qs(token[len(_PREFIX) :]).items()}
        if not token.startswith(_PREFIX) or not {"sr", "sig", "se", "skn"} <= fields.keys():
            return False
        key = keys.get(fields["skn"])
        if key is None or not fields["se"].isdigit() or int(fields["se"]) < clock():
            return False
        signed = f"{quote_plus(fields['sr'])}\n{fields['se']}".encode()
        wanted = base64.b64encode(hmac.new(key.encode(), signed, hashlib.sha256).digest()).decode()
        return hmac.compare_digest(wanted, fields["sig"])

    return good
