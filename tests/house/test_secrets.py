"""What holds a secret doesn't show it: notebooks, logs and tracebacks keep what they are shown."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from edgefleet.cli.device_list import Outcome
from edgefleet.interfaces.inviting import Invitation
from edgefleet.protocol.gateway import Enrolment
from edgefleet.protocol.oci import Credentials
from edgefleet_runtime.channels.greengrass.credentials import Keys
from edgefleet_runtime.channels.iotedge.twin import ReadAccess, UploadAccess, Wanted
from edgefleet_runtime.channels.pull.https import Proxy
from edgefleet_runtime.channels.pull.keys import Granted

SECRET = "s3cr3t-of-thirty-two-characters--"
NOW = datetime(2026, 5, 1, tzinfo=UTC)
COMMAND = f"curl … | sh -s -- --token {SECRET}"
READ = ReadAccess(read=SECRET)
WRITE = UploadAccess(address="https://store", write=SECRET)


@pytest.mark.parametrize(
    "holder",
    [
        Credentials("line", SECRET),
        Enrolment(token=SECRET, request="-----BEGIN"),
        Granted(SECRET.encode(), "0a", NOW, NOW),
        Invitation("cam-1", "line", COMMAND, SECRET, NOW),
        Keys("AKIA", SECRET, SECRET, 0.0),
        Outcome(1, "cam-1", "line", "invited", token=SECRET, command=COMMAND),
        Proxy.of(f"http://line:{SECRET}@proxy:3128"),
        READ,
        WRITE,
        Wanted(access=READ, upload=WRITE),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_what_holds_a_secret_does_not_show_it(holder: object) -> None:
    encoded = "bGluZTpz"  # how base64 of "line:s…" begins, as a proxy is shown it
    for text in (repr(holder), str(holder), f"{holder}", repr([holder])):
        assert SECRET not in text
        assert encoded not in text
