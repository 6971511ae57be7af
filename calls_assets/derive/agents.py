"""All days' calls and legs to the agents ever seen.

A **sighting** is one agent on one call: a leg, or an entry of `agent_ids` without a leg. Of each agent only the few
sightings that decide its row are kept from day to day, so memory hardly grows with the days, and as they are chosen by
what they say, never by when they came, the order of the days does not matter, nor whether some are chosen first.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calls_assets.lake.schemas import INSTANT, TABLES

_AGENTS = TABLES["agents"].schema
_LATEST = ("user_id", "alias", "sip")
_SIGHTINGS = pa.schema(
    [
        *(_AGENTS.field(name).remove_metadata().with_nullable(True) for name in ("agent_id", *_LATEST)),
        pa.field("seen_at", INSTANT),
        pa.field("call_id", pa.int64()),
        pa.field("leg", pa.int64()),
    ]
)
# Rows that agree in all keys but the last three are the same leg in two days, while a moved call is still in both.
_ORDER = [(name, "ascending") for name in ("agent_id", "seen_at", "call_id", "leg", *_LATEST)]
_NO_LEG = -1


def derive_agents(days: Iterable[tuple[pa.Table, pa.Table]]) -> pa.Table:
    """Derives the agents from the tables of days.

    An agent is seen when a leg starts, or when the call does if the leg's start is unknown or there is no leg.
    `user_id`, `alias` and `sip` are each the latest that is not NULL; between equal moments the higher call decides,
    then the higher leg.

    Args:
        days: For each day its `calls` and `call_agents`, in any order of days; taken one at a time.

    Returns:
        The table `agents`, by agent_id.
    """
    return describe_agents([find_sightings(days)])


def find_sightings(days: Iterable[tuple[pa.Table, pa.Table]]) -> pa.Table:
    """Finds the sightings that decide, of all that there are in some days.

    Args:
        days: As for `derive_agents`.
    """
    kept = _SIGHTINGS.empty_table()
    for calls, call_agents in days:
        kept = _keep_deciding(pa.concat_tables([kept, *_find_all(calls, call_agents)]))
    return kept


def describe_agents(sightings: Iterable[pa.Table]) -> pa.Table:
    """Makes `agents` of what `find_sightings` gave for parts of the days, in any order."""
    kept = _keep_deciding(pa.concat_tables([_SIGHTINGS.empty_table(), *sightings]))
    seen = kept.group_by("agent_id", use_threads=False).aggregate(
        [*((name, "last") for name in _LATEST), ("seen_at", "min"), ("seen_at", "max")]
    )
    columns = ("agent_id", *(f"{name}_last" for name in _LATEST), "seen_at_min", "seen_at_max")
    return pa.Table.from_arrays([seen[name].combine_chunks() for name in columns], schema=_AGENTS)


def _find_all(calls: pa.Table, call_agents: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Gives a day's sightings: the legs, and the agents of `agent_ids` without a leg in the call."""
    call_of_leg = pc.index_in(call_agents["call_id"], value_set=calls["call_id"].combine_chunks())
    call_started_at = calls["started_at"].take(call_of_leg)
    legs = pa.table(
        {
            **{name: call_agents[name] for name in ("agent_id", *_LATEST)},
            "seen_at": pc.coalesce(call_agents["started_at"], call_started_at),
            "call_id": call_agents["call_id"],
            "leg": call_agents["leg"],
        },
        schema=_SIGHTINGS,
    )
    agent_ids = calls["agent_ids"].combine_chunks()
    call_of_agent = pc.list_parent_indices(agent_ids)
    listed = pa.table(
        {
            "agent_id": pc.list_flatten(agent_ids),
            "seen_at": calls["started_at"].take(call_of_agent),
            "call_id": calls["call_id"].take(call_of_agent),
        }
    ).join(legs.select(["call_id", "agent_id"]), keys=["call_id", "agent_id"], join_type="left anti")
    without_leg = {
        **{name: listed[name] for name in ("agent_id", "seen_at", "call_id")},
        **{name: pa.nulls(len(listed), _SIGHTINGS.field(name).type) for name in _LATEST},
        "leg": pa.array(np.full(len(listed), _NO_LEG)),
    }
    return legs, pa.table({name: without_leg[name] for name in _SIGHTINGS.names}, schema=_SIGHTINGS)


def _keep_deciding(sightings: pa.Table) -> pa.Table:
    """Gives in order each agent's first and last sighting, and the last that tells a user, an alias, a SIP address."""
    is_complete = pc.and_(pc.is_valid(sightings["agent_id"]), pc.is_valid(sightings["seen_at"]))
    ordered = sightings.filter(is_complete).sort_by(_ORDER)
    rows = ordered.append_column("row", pa.array(np.arange(len(ordered))))
    ends = rows.group_by("agent_id").aggregate([("row", "min"), ("row", "max")])
    deciding = [ends["row_min"].to_numpy(), ends["row_max"].to_numpy()]
    for name in _LATEST:
        telling = rows.filter(pc.is_valid(rows[name]))
        deciding.append(telling.group_by("agent_id").aggregate([("row", "max")])["row_max"].to_numpy())
    return ordered.take(pa.array(np.unique(np.concatenate(deciding)))).combine_chunks()
