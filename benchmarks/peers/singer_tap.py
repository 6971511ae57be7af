"""A Singer tap with Meltano's SDK as its documentation has it: a parent stream of ids, a child stream of calls.

Retries with backoff, one request at a time (the SDK knows no other way); messages on standard output, a log with
metrics of every request on standard error. With `--partitions` it is one stream with a partition for each id instead,
which spares the child a new start for each, and it logs warnings only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, ClassVar

from singer_sdk import RESTStream, Stream, Tap
from singer_sdk import typing as th
from singer_sdk.authenticators import APIKeyAuthenticator
from singer_sdk.pagination import SinglePagePaginator

HAS_PARTITIONS = "--partitions" in sys.argv
_ANYTHING = th.ObjectType(additional_properties=True)


def list_ids() -> range:
    """Gives every id."""
    first = int(os.environ["FIRST_ID"])
    return range(first, first + int(os.environ["COUNT"]))


class CallIds(Stream):
    """The ids to ask for."""

    name = "call_ids"
    schema = th.PropertiesList(th.Property("id", th.IntegerType, required=True)).to_dict()
    primary_keys: ClassVar = ["id"]
    selected_by_default = False

    def get_records(self, context: dict[str, Any] | None) -> Iterable[dict[str, Any]]:
        """Gives every id."""
        return ({"id": call_id} for call_id in list_ids())

    def get_child_context(self, record: dict[str, Any], context: dict[str, Any] | None) -> dict[str, Any]:
        """Tells the child its id."""
        return {"call_id": record["id"]}


class Calls(RESTStream):
    """One call by its id."""

    name = "calls"
    path = "/calls/{call_id}"
    parent_stream_type = None if HAS_PARTITIONS else CallIds
    records_jsonpath = "$.calls"
    state_partitioning_keys: ClassVar = []
    primary_keys: ClassVar = ["id"]
    schema = th.PropertiesList(
        th.Property("id", th.IntegerType, required=True),
        *(
            th.Property(name, th.BooleanType)
            for name in ("is_inbound", "is_answered", "is_in_queue", "requested_callback", "is_ended")
        ),
        *(th.Property(name, th.BooleanType) for name in ("is_answered_within_sla", "is_data_cached")),
        *(th.Property(name, th.IntegerType) for name in ("started_at", "duration", "talk_time", "original_call_id")),
        th.Property("type", th.StringType),
        *(
            th.Property(name, _ANYTHING)
            for name in ("contact", "number", "campaign", "ring_group", "ivr", "disposition")
        ),
        th.Property("agents", th.ArrayType(th.IntegerType)),
        th.Property("tags", th.ArrayType(th.StringType)),
        *(
            th.Property(name, th.ArrayType(_ANYTHING))
            for name in ("all_agents", "answered_agents", "external_numbers", "recordings")
        ),
    ).to_dict()

    @property
    def partitions(self) -> list[dict[str, Any]] | None:
        """Every id, if each is a partition."""
        return [{"call_id": call_id} for call_id in list_ids()] if HAS_PARTITIONS else None

    @property
    def url_base(self) -> str:
        """Where the API is."""
        return os.environ["BASE_URL"]

    @property
    def authenticator(self) -> APIKeyAuthenticator:
        """Puts the token into its header."""
        return APIKeyAuthenticator(key="Access-Token", value=os.environ["CALLS_API_TOKEN"], location="header")

    def get_new_paginator(self) -> SinglePagePaginator:
        """There is one page."""
        return SinglePagePaginator()


class CallsTap(Tap):
    """The tap."""

    name = "tap-calls"
    config_jsonschema = th.PropertiesList().to_dict()

    def discover_streams(self) -> list[Stream]:
        """Gives the streams."""
        return [Calls(self)] if HAS_PARTITIONS else [CallIds(self), Calls(self)]


if __name__ == "__main__":
    if HAS_PARTITIONS:
        sys.argv.remove("--partitions")
        os.environ["LOGLEVEL"] = "WARNING"
    CallsTap.cli()
