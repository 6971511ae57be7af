"""Which agents were ever seen, when, and what they are called now."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from calls_assets.derive import derive_agents
from calls_assets.lake.schemas import TABLES
from calls_assets_tests.derive.versions import at

NOON = datetime(2025, 5, 21, 12, tzinfo=UTC)

Rows = list[dict[str, Any]]
Day = tuple[pa.Table, pa.Table]


def to_rows(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Makes a table of the registry's schema; columns that are not given are NULL."""
    schema = TABLES[name].schema
    return pa.Table.from_pylist([{field: row.get(field) for field in schema.names} for row in rows], schema=schema)


def a_day(calls: Sequence[Mapping[str, Any]], legs: Sequence[Mapping[str, Any]] = ()) -> Day:
    """Makes the tables of a day."""
    return to_rows("calls", calls), to_rows("call_agents", legs)


def a_call(call_id: int, started_at: datetime = NOON, agent_ids: Sequence[int] | None = None) -> dict[str, Any]:
    """Makes the columns of a call that tell of agents."""
    return {"call_id": call_id, "started_at": started_at, "agent_ids": agent_ids}


def a_leg(call_id: int, position: int, agent_id: int | None, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - columns of any type
    """Makes a leg."""
    return {"call_id": call_id, "leg": position, "agent_id": agent_id, **fields}


def agents_of(*days: Day) -> Rows:
    """Derives the agents as rows."""
    rows: Rows = derive_agents(days).to_pylist()
    return rows


def test_without_days_there_is_an_empty_table_with_the_registrys_schema() -> None:
    """No days, and days without calls, give the schema and no rows."""
    for days in ([], [a_day([])], [a_day([]), a_day([a_call(1)])]):
        agents = derive_agents(days)
        assert agents.schema.equals(TABLES["agents"].schema, check_metadata=True)
        assert agents.num_rows == 0


def test_an_agent_is_seen_at_its_legs_and_otherwise_at_its_calls() -> None:
    """A leg's start counts; the call's start stands in for an unknown one, and for an agent without a leg."""
    agents = agents_of(
        a_day(
            [a_call(1, NOON, [3, 1]), a_call(2, NOON + timedelta(hours=1), [1, 2])],
            [
                a_leg(1, 0, 1, user_id=41, alias="Ann", sip="sip:1", started_at=NOON + timedelta(seconds=9)),
                a_leg(2, 0, 1, user_id=41, alias="Ann", sip="sip:1"),
                a_leg(2, 1, None, alias="Nobody"),
            ],
        )
    )
    assert agents == [
        {
            "agent_id": 1,
            "user_id": 41,
            "alias": "Ann",
            "sip": "sip:1",
            "first_seen_at": at("2025-05-21T12:00:09"),
            "last_seen_at": at("2025-05-21T13:00:00"),
        },
        {
            "agent_id": 2,
            "user_id": None,
            "alias": None,
            "sip": None,
            "first_seen_at": at("2025-05-21T13:00:00"),
            "last_seen_at": at("2025-05-21T13:00:00"),
        },
        {
            "agent_id": 3,
            "user_id": None,
            "alias": None,
            "sip": None,
            "first_seen_at": at("2025-05-21T12:00:00"),
            "last_seen_at": at("2025-05-21T12:00:00"),
        },
    ]


def test_each_of_user_alias_and_sip_is_the_latest_that_was_told() -> None:
    """A later leg that does not tell the alias does not take away an earlier one's."""
    later, latest = NOON + timedelta(days=1), NOON + timedelta(days=2)
    days = (
        a_day([a_call(1)], [a_leg(1, 0, 1, user_id=41, alias="Old", sip="sip:old", started_at=NOON)]),
        a_day([a_call(2, later)], [a_leg(2, 0, 1, alias="New", started_at=later)]),
        a_day([a_call(3, latest)], [a_leg(3, 0, 1, sip="sip:new", started_at=latest)]),
    )
    expected = [
        {
            "agent_id": 1,
            "user_id": 41,
            "alias": "New",
            "sip": "sip:new",
            "first_seen_at": NOON,
            "last_seen_at": latest,
        }
    ]
    assert agents_of(*days) == expected
    assert agents_of(*reversed(days)) == expected


def test_between_equal_moments_the_higher_call_decides_and_then_the_higher_leg() -> None:
    """Ties have one outcome, in whatever order the days come."""
    low = a_day([a_call(1)], [a_leg(1, 0, 1, alias="call 1, leg 0"), a_leg(1, 7, 1, alias="call 1, leg 7")])
    high = a_day([a_call(2)], [a_leg(2, 0, 1, alias="call 2, leg 0"), a_leg(2, 1, 1, alias="call 2, leg 1")])
    assert [row["alias"] for row in agents_of(low, high)] == ["call 2, leg 1"]
    assert [row["alias"] for row in agents_of(high, low)] == ["call 2, leg 1"]


def test_what_is_kept_does_not_grow_with_the_days() -> None:
    """Arrow's memory between two days is the same after the third day and after the twentieth."""
    allocated = []

    def days() -> Iterable[Day]:
        for number in range(20):
            allocated.append(pa.total_allocated_bytes())
            started_at = NOON + timedelta(days=number)
            calls = [a_call(1000 * number + call, started_at, [call % 7]) for call in range(1000)]
            yield a_day(calls, [a_leg(call["call_id"], 0, call["call_id"] % 5, alias="Ann") for call in calls])

    assert len(derive_agents(days())) == 7
    # Each pull still holds the day before: 1,000 calls take far more than this slack.
    assert allocated[-1] <= allocated[3] + 4096


def simple_agents(days: Sequence[tuple[Rows, Rows]]) -> Rows:
    """Derives the agents in the plainest way: all sightings in one list, in order."""
    sightings = []
    for calls, legs in days:
        starts = {call["call_id"]: call["started_at"] for call in calls}
        with_leg = {(leg["call_id"], leg["agent_id"]) for leg in legs}
        sightings += [
            (leg.get("started_at") or starts[leg["call_id"]], leg["call_id"], leg["leg"], leg["agent_id"], leg)
            for leg in legs
            if leg["agent_id"] is not None
        ]
        sightings += [
            (call["started_at"], call["call_id"], -1, agent_id, {})
            for call in calls
            for agent_id in call["agent_ids"] or ()
            if (call["call_id"], agent_id) not in with_leg
        ]
    agents: dict[int, dict[str, Any]] = {}
    for seen_at, _, _, agent_id, leg in sorted(sightings, key=lambda sighting: sighting[:4]):
        agent = agents.setdefault(
            agent_id, {"agent_id": agent_id, "user_id": None, "alias": None, "sip": None, "first_seen_at": seen_at}
        )
        agent["last_seen_at"] = seen_at
        agent.update({name: leg[name] for name in ("user_id", "alias", "sip") if leg.get(name) is not None})
    return [agents[agent_id] for agent_id in sorted(agents)]


moments = st.integers(0, 5).map(lambda hours: NOON + timedelta(hours=hours))
agent_ids = st.integers(1, 4)
legs_of_a_call = st.lists(
    st.fixed_dictionaries(
        {
            "agent_id": st.none() | agent_ids,
            "user_id": st.none() | st.integers(40, 42),
            "alias": st.none() | st.sampled_from(["Ann", "Bob", "Cy"]),
            "sip": st.none() | st.sampled_from(["sip:1", "sip:2"]),
            "started_at": st.none() | moments,
        }
    ),
    max_size=3,
)


@st.composite
def many_days(draw: st.DrawFn) -> list[tuple[Rows, Rows]]:
    """Draws days of calls with legs."""
    days: list[tuple[Rows, Rows]] = []
    for number in range(draw(st.integers(0, 4))):
        calls, legs = [], []
        for call_id in range(10 * number, 10 * number + draw(st.integers(0, 3))):
            calls.append(a_call(call_id, draw(moments), draw(st.none() | st.lists(agent_ids, max_size=3))))
            legs += [{"call_id": call_id, "leg": position, **leg} for position, leg in enumerate(draw(legs_of_a_call))]
        days.append((calls, legs))
    return days


@settings(max_examples=60, deadline=None)
@given(days=many_days(), data=st.data())
def test_the_agents_are_those_of_the_plainest_way_in_any_order_of_days(
    days: list[tuple[Rows, Rows]], data: st.DataObject
) -> None:
    """Keeping only the deciding sightings loses nothing, and the order of the days does not matter."""
    shuffled = data.draw(st.permutations(days))
    assert agents_of(*(a_day(calls, legs) for calls, legs in shuffled)) == simple_agents(days)
