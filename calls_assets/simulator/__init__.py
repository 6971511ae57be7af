"""A stand-in for the vendor's API: for the demo, for tests and for measuring.

`account` says which account to invent, `vendor` answers for it, `faults` says how the network misbehaves, `app` speaks
HTTP, `server` runs it; `webhook` says what is posted about calls that end, `posting` posts it. Every answer is a
function of (account, id, moment): nothing is stored. People, numbers and addresses are invented. Only tests and the
command line use this package, and it uses nothing else of the project.
"""

from calls_assets.simulator.account import Account
from calls_assets.simulator.app import create_app
from calls_assets.simulator.clock import SettableClock
from calls_assets.simulator.faults import FaultPlan
from calls_assets.simulator.posting import Webhook
from calls_assets.simulator.server import RunningServer, add_arguments, run_from_arguments, serve
from calls_assets.simulator.vendor import Vendor

__all__ = [
    "Account",
    "FaultPlan",
    "RunningServer",
    "SettableClock",
    "Vendor",
    "Webhook",
    "add_arguments",
    "create_app",
    "run_from_arguments",
    "serve",
]
