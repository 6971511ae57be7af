"""The marts' part of the schema registry: columns, types, keys; of every measure its formula and how far to trust it.

The formulas in SQL are in `calls_assets/marts/*.sql`. A ratio names its numerator and its denominator, both columns of
the same mart, in its description and as field metadata: sums of the two give the ratio of any larger group.
Trust says how sure it is that the figure means what its name says: high, medium or low.
"""

from __future__ import annotations

import pyarrow as pa

from calls_assets.lake.schemas import INSTANT, TABLES, WALL_CLOCK, Table

_ID = pa.int64()
_WHOLE = pa.int64()
_REAL = pa.float64()
_TEXT = pa.string()
_FLAG = pa.bool_()


def _column(name: str, type_: pa.DataType, description: str) -> pa.Field:
    """Makes a column; a name that ends with `*` is never NULL."""
    return pa.field(name.rstrip("*"), type_, nullable=not name.endswith("*"), metadata={"description": description})


def _measure(
    name: str, meaning: str, formula: str, *, source: str = "calls", trust: str = "high", type_: pa.DataType = None
) -> pa.Field:
    """Makes a measure; its type follows from its name unless given."""
    if type_ is None:
        type_ = _FLAG if name.startswith("is_") else _WHOLE
    return _column(name, type_, f"{meaning} Formula: {formula}. Source: {source}. Trust: {trust}.")


def _ratio(name: str, meaning: str, numerator: str, denominator: str, *, trust: str = "high") -> pa.Field:
    """Makes a quotient of two columns of the mart, NULL when the denominator is 0 or NULL."""
    formula = f"{numerator} / {denominator}"
    field = _measure(name, meaning, formula, source="this mart", trust=trust, type_=_REAL)
    return field.with_metadata(
        field.metadata | {b"numerator": numerator.encode(), b"denominator": denominator.encode()}
    )


def _mart(name: str, description: str, columns: list[pa.Field], *, key: tuple[str, ...]) -> Table:
    schema = pa.schema(columns, metadata={"description": description})
    return Table(name=name, description=description, schema=schema, key=key, sort_by=key, tree="marts")


_IS_INBOUND = _column("is_inbound", _FLAG, "True for calls of contacts, false for calls of agents; NULL: not told.")
_CAMPAIGN = (
    _column("campaign_id", _ID, "The campaign; NULL for calls without one."),
    _column("campaign_name", _TEXT, "The campaign's name when the calls were read."),
)
_RING_GROUP = (
    _column("ring_group_id", _ID, "The ring group (queue); NULL for calls that reached none."),
    _column("ring_group_name", _TEXT, "The ring group's name when the calls were read."),
)
_TALK_QUANTILE = "Not additive: for larger groups take it from calls."

SERVICE_INTERVALS = _mart(
    "service_intervals",
    "One row per half hour of local time, direction, campaign and ring group in which calls began.",
    [
        _column("interval_start_at*", INSTANT, "Start of the half hour: tells apart the two hours of a 25-hour day."),
        _column("interval_start_local*", WALL_CLOCK, "Start of the half hour, as wall clock in CALLS_TIMEZONE."),
        _IS_INBOUND,
        *_CAMPAIGN,
        *_RING_GROUP,
        _measure("calls*", "Calls that began in the half hour.", "n(all)"),
        _measure("ended_calls*", "Those that are over: all counts below are of these.", "n(E), E = is_ended"),
        _measure("connected_calls*", "Answered calls of either direction.", "n(E∧A), A = is_answered"),
        _measure(
            "offered_calls*",
            "Inbound calls, those outside business hours or that ended in the voice menu included.",
            "n(IN), IN = E ∧ is_inbound",
        ),
        _measure("answered_calls*", "Inbound calls that were answered.", "n(IN∧A)"),
        _measure(
            "unanswered_calls*",
            "Inbound calls that nobody answered and without a wish to be called back: abandoned, missed or voicemail, "
            "so an upper bound of the abandoned ones.",
            "n(IN∧¬A∧¬CB), CB = requested_callback",
            trust="medium",
        ),
        _measure("callbacks_requested*", "Inbound calls whose contact asked to be called back.", "n(IN∧CB)"),
        _measure("unanswered_callback_calls*", "Of these, the ones nobody answered.", "n(IN∧¬A∧CB)"),
        _ratio("answer_rate", "Share of offered calls that were answered.", "answered_calls", "offered_calls"),
        _measure(
            "answered_within_sla_calls*",
            "Numerator of every service level.",
            "n(IN∧A∧S), S = is_answered_within_sla: the threshold is set at the vendor and not told",
        ),
        _measure(
            "sla_unknown_calls*",
            "Answered inbound calls of which S is not told: they count as not within.",
            "n(IN∧A∧S is NULL)",
        ),
        _measure(
            "offered_without_callbacks_calls*",
            "Offered calls but for those that became a wish to be called back.",
            "n(IN) - n(IN∧¬A∧CB)",
        ),
        _ratio(
            "service_level_strict", "Service level of all offered calls.", "answered_within_sla_calls", "offered_calls"
        ),
        _ratio(
            "service_level_answered",
            "Service level of answered calls only: those nobody answered do not lower it, so do not steer by it.",
            "answered_within_sla_calls",
            "answered_calls",
        ),
        _ratio(
            "service_level_without_callbacks",
            "Service level with callbacks excluded.",
            "answered_within_sla_calls",
            "offered_without_callbacks_calls",
        ),
        _measure(
            "abandonment_known_calls*",
            "Offered calls of which the webhook told whether they were abandoned.",
            "n(IN∧is_abandoned is not NULL)",
            source="webhook",
        ),
        _measure(
            "abandoned_calls",
            "Offered calls whose contact hung up while waiting; NULL when no call has webhook data.",
            "n(IN∧is_abandoned)",
            source="webhook",
        ),
        _ratio(
            "abandonment_rate",
            "Share abandoned, of the calls with webhook data.",
            "abandoned_calls",
            "abandonment_known_calls",
        ),
        _measure(
            "wait_known_calls*",
            "Answered inbound calls whose wait the webhook told.",
            "n(IN∧A∧waiting_seconds is not NULL)",
            source="webhook",
        ),
        _measure(
            "answered_wait_seconds",
            "Their waits; NULL when no call has webhook data.",
            "Σ waiting_seconds over IN∧A",
            source="webhook",
        ),
        _ratio(
            "average_speed_of_answer_seconds",
            "ASA: mean wait of answered calls with webhook data.",
            "answered_wait_seconds",
            "wait_known_calls",
        ),
        _measure(
            "talk_known_calls*", "Connected calls whose talk time is told.", "n(E∧A∧talk_time_seconds is not NULL)"
        ),
        _measure("talk_seconds*", "Their talk time.", "Σ talk_time_seconds over E∧A"),
        _ratio(
            "mean_talk_seconds",
            "Mean talk time. Handle time is longer: hold and after-call work belong to it, the source has neither.",
            "talk_seconds",
            "talk_known_calls",
        ),
        _measure("p50_talk_seconds", f"Median talk time. {_TALK_QUANTILE}", "quantile_cont(0.5)", type_=_REAL),
        _measure(
            "p90_talk_seconds", f"Nine in ten talks are no longer. {_TALK_QUANTILE}", "quantile_cont(0.9)", type_=_REAL
        ),
        _measure(
            "transferred_calls*",
            "Connected calls with a transfer, to agents or outside; calls, not legs.",
            "n(E∧A∧is_transferred)",
            trust="medium",
        ),
        _ratio(
            "transfer_rate",
            "Share of connected calls with a transfer.",
            "transferred_calls",
            "connected_calls",
            trust="medium",
        ),
        _measure(
            "disposed_calls*",
            "Connected calls with a disposition. They come late: see is_final in calls.",
            "n(E∧A∧(disposition_id or disposition_code))",
        ),
        _ratio(
            "disposition_coverage", "Share of connected calls with a disposition.", "disposed_calls", "connected_calls"
        ),
        _measure(
            "recorded_calls*", "Connected calls with a recording. They come late too.", "n(E∧A∧recording_count > 0)"
        ),
        _ratio("recording_coverage", "Share of connected calls with a recording.", "recorded_calls", "connected_calls"),
        _measure("outbound_calls*", "Calls of agents.", "n(OUT), OUT = E ∧ ¬is_inbound"),
        _measure("outbound_answered_calls*", "Calls of agents that were answered.", "n(OUT∧A)"),
        _ratio(
            "outbound_connect_rate",
            "Share of agents' calls that were answered.",
            "outbound_answered_calls",
            "outbound_calls",
        ),
    ],
    key=("interval_start_at", "is_inbound", "campaign_id", "campaign_name", "ring_group_id", "ring_group_name"),
)

AGENT_DAYS = _mart(
    "agent_days",
    "One row per agent who had a leg in one of the day's calls. Legs and calls that name no agent are the row with "
    "agent_id NULL, so that sums over agents are those of the day.",
    [
        _column("agent_id", _ID, "The agent; joins to agents.agent_id."),
        _column("alias", _TEXT, "The agent's display name in the day's last leg that has one."),
        _measure("legs*", "Legs of the agent.", "rows", source="call_agents"),
        _measure(
            "offered_legs*",
            "Legs of inbound calls. A queue that rings several agents offers one call several times.",
            "n(IN)",
            source="call_agents",
        ),
        _measure("answered_legs*", "Of these, answered.", "n(IN∧is_answered)", source="call_agents"),
        _measure(
            "lost_race_legs*",
            "Of these, not answered because another agent was faster: not the agent's fault.",
            "n(IN∧¬is_answered∧hangup_reason = LOSE_RACE)",
            source="call_agents",
            trust="medium",
        ),
        _measure(
            "caller_hangup_legs*",
            "Of these, not answered because the caller hung up: not the agent's fault.",
            "n(IN∧¬is_answered∧hangup_reason = ORIGINATOR_CANCEL)",
            source="call_agents",
            trust="medium",
        ),
        _measure(
            "no_answer_legs*",
            "Of these, not answered though it rang.",
            "n(IN∧¬is_answered∧hangup_reason in NO_ANSWER, NO_USER_RESPONSE, ALLOTTED_TIMEOUT)",
            source="call_agents",
            trust="medium",
        ),
        _measure(
            "declined_legs*",
            "Of these, declined or met by a busy line.",
            "n(IN∧¬is_answered∧hangup_reason in CALL_REJECTED, USER_BUSY)",
            source="call_agents",
            trust="medium",
        ),
        _measure(
            "other_reason_legs*",
            "Of these, not answered for any other reason.",
            "n(IN∧¬is_answered∧any other hangup_reason)",
            source="call_agents",
            trust="medium",
        ),
        _measure(
            "unknown_reason_legs*",
            "Of these, not answered and no reason told, for example still ringing.",
            "n(IN∧¬is_answered∧hangup_reason is NULL)",
            source="call_agents",
            trust="medium",
        ),
        _measure(
            "transfer_legs*",
            "Legs that are part of a transfer, any direction.",
            "n(is_any_transfer)",
            source="call_agents",
            trust="medium",
        ),
        _measure(
            "calls*",
            "Calls with a leg of the agent; a call of two agents is in two rows.",
            "n(distinct call_id)",
            source="call_agents",
        ),
        _measure(
            "answered_calls*",
            "Calls with a leg the agent answered.",
            "n(distinct call_id, is_answered)",
            source="call_agents",
        ),
        _measure(
            "transferred_calls*",
            "Of the agent's answered calls, those with a transfer.",
            "n(distinct call_id, is_answered∧calls.is_transferred)",
            source="calls, call_agents",
            trust="medium",
        ),
        _measure(
            "handled_calls*",
            "Calls that are over and that the agent was the first to answer: each connected call counts for one agent.",
            "n(E∧A) by answered_agent_id",
        ),
        _measure("talk_known_calls*", "Of these, calls whose talk time is told.", "n(talk_time_seconds is not NULL)"),
        _measure(
            "talk_seconds*",
            "Talk time of handled calls, after a transfer with the next agent's part: the source does not divide it.",
            "Σ talk_time_seconds over E∧A by answered_agent_id",
            trust="medium",
        ),
        _ratio(
            "mean_talk_seconds", "Mean talk time of handled calls.", "talk_seconds", "talk_known_calls", trust="medium"
        ),
        _measure(
            "disposed_calls*",
            "Handled calls with a disposition; who set it is not told.",
            "n(E∧A∧(disposition_id or disposition_code)) by answered_agent_id",
            trust="medium",
        ),
        _ratio(
            "disposition_coverage",
            "Share of handled calls with a disposition.",
            "disposed_calls",
            "handled_calls",
            trust="medium",
        ),
    ],
    key=("agent_id",),
)

DISPOSITION_DAYS = _mart(
    "disposition_days",
    "One row per disposition, campaign and direction of the day's calls. Calls without a disposition are rows with "
    "disposition_id and disposition_code NULL.",
    [
        _column("disposition_id", _ID, "The outcome's number."),
        _column("disposition_code", _TEXT, "The outcome's text; NULL: none set, or not yet."),
        *_CAMPAIGN,
        _IS_INBOUND,
        _measure("calls*", "Calls.", "n(all)"),
        _measure(
            "group_calls*",
            "Calls of the campaign and direction, whatever their disposition: do not sum it over dispositions.",
            "Σ calls over dispositions",
            source="this mart",
        ),
        _ratio("share", "Share of the campaign's and direction's calls.", "calls", "group_calls"),
        _measure("connected_calls*", "Calls that are over and were answered.", "n(E∧A)"),
        _measure(
            "talk_known_calls*", "Of these, calls whose talk time is told.", "n(E∧A∧talk_time_seconds is not NULL)"
        ),
        _measure("talk_seconds*", "Their talk time.", "Σ talk_time_seconds over E∧A"),
        _ratio("mean_talk_seconds", "Mean talk time.", "talk_seconds", "talk_known_calls"),
    ],
    key=("disposition_id", "disposition_code", "campaign_id", "campaign_name", "is_inbound"),
)

CALL_JOURNEYS = _mart(
    "call_journeys",
    "One row per chain of calls about one matter, in the day of its first call. A call continues the call that its "
    "original_call_id names, else the contact's last inbound call before it if it is inbound itself, in either case "
    "when that began earlier and within 7 days. Links to itself, to later calls and to calls that are not there are no "
    "links. A chain that has gone through a whole calendar week is cut at that week's end (a line that rings every day "
    "is no matter): a journey lies within two weeks, Monday to Sunday, and each call is in exactly one.",
    [
        _column("first_call_id*", _ID, "The first call: names the journey."),
        _column("first_started_at*", INSTANT, "When it began."),
        _column("first_started_at_local", WALL_CLOCK, "When it began, as wall clock in CALLS_TIMEZONE."),
        _column("is_inbound", _FLAG, "Direction of the first call."),
        _column("contact_id", _ID, "Contact of the first call."),
        *_CAMPAIGN,
        *_RING_GROUP,
        _column("last_call_id*", _ID, "The last call so far."),
        _column("last_started_at*", INSTANT, "When it began."),
        _measure("calls*", "Calls of the journey.", "n(all)"),
        _measure("inbound_calls*", "Inbound calls that are over.", "n(IN)"),
        _measure("connected_calls*", "Answered calls that are over.", "n(E∧A)"),
        _measure(
            "continued_calls*",
            "Calls that continue one by original_call_id (transfers, callbacks).",
            "n(original_call_id links)",
            trust="medium",
        ),
        _measure(
            "redial_calls*",
            "Inbound calls of the same contact within 15 minutes of the last: broken off or forwarded, no repeats.",
            "n(contact links up to 15 min)",
            trust="medium",
        ),
        _measure(
            "repeat_calls*",
            "Inbound calls of the same contact after 15 minutes and within 7 days, not explained by original_call_id. "
            "Numbers that several people share make too many.",
            "n(contact links after 15 min)",
            trust="medium",
        ),
        _measure("agents*", "Agents who answered a leg.", "n(distinct agent_id, is_answered)", source="call_agents"),
        _measure("talk_seconds*", "Talk time of the connected calls.", "Σ talk_time_seconds over E∧A"),
        _measure(
            "span_seconds*",
            "From the start of the first call to that of the last.",
            "last_started_at - first_started_at",
        ),
        _measure(
            "is_complete*",
            "Whether the journey can no longer grow: 7 days have passed since its last call, or it is cut, and every "
            "day until then is in the lake and over.",
            "see meaning",
        ),
        _measure(
            "is_resolved_without_repeat",
            "Whether a contact who called in was answered and did not call again; NULL: none did, or 7 days still run.",
            "n(IN∧A) > 0 ∧ repeat_calls = 0, known when a repeat came or is_complete",
            trust="medium",
        ),
    ],
    key=("first_call_id",),
)

MARTS: dict[str, Table] = {mart.name: mart for mart in (SERVICE_INTERVALS, AGENT_DAYS, DISPOSITION_DAYS, CALL_JOURNEYS)}
"""The marts, all of them daily."""

DATASETS: dict[str, Table] = TABLES | MARTS
"""Everything that BI reads."""
