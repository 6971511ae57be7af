"""The inbox: ids that somebody named, waiting for their sweep.

`spool` keeps them: deliveries of the vendor's webhook, and ids that a user asked for. `receiver` takes deliveries over
HTTP; it loads a web server, so only who runs it imports it. What stays out: asking the API (`ingest`) and keeping what
it said (`lake`).
"""

from calls_assets.inbox.spool import (
    HIGHEST_REQUEST,
    PATIENT_ATTEMPTS,
    Delivery,
    IdRequest,
    Inbox,
    Waiting,
    is_due,
    join_ranges,
    parse_ids,
)

__all__ = [
    "HIGHEST_REQUEST",
    "PATIENT_ATTEMPTS",
    "Delivery",
    "IdRequest",
    "Inbox",
    "Waiting",
    "is_due",
    "join_ranges",
    "parse_ids",
]
