"""An Azure Function whose timer renews the access of a fleet's devices, every Monday at 04:17.

Publish this folder with your ``edgefleet.toml`` in it: ``func azure functionapp publish NAME``. The
function app's managed identity needs the roles that ``docs/how-to/azure-access.md`` lists.
"""

from __future__ import annotations

import logging

import azure.functions as func
from renewal import renew

app = func.FunctionApp()
_log = logging.getLogger(__name__)


@app.timer_trigger(schedule="0 17 4 * * 1", arg_name="timer", use_monitor=True)
def renew_access(timer: func.TimerRequest) -> None:
    """Renew; an error ends the call, so that it is repeated and seen."""
    _log.info("renewed: %d%s", renew(), ", late" if timer.past_due else "")
