-- One row per agent. A leg counts for its agent; a call's talk and outcome count once, for the agent who answered first.
WITH facts AS (
    SELECT
        legs.agent_id,
        legs.call_id,
        legs.leg,
        legs.alias,
        calls.started_at,
        calls.is_inbound IS TRUE AS offered,
        legs.is_answered AS answered,
        calls.is_inbound IS TRUE AND NOT legs.is_answered AS missed,
        CASE
            WHEN legs.hangup_reason IS NULL THEN 'unknown'
            WHEN legs.hangup_reason = 'LOSE_RACE' THEN 'lost race'
            WHEN legs.hangup_reason = 'ORIGINATOR_CANCEL' THEN 'caller hung up'
            WHEN legs.hangup_reason IN ('NO_ANSWER', 'NO_USER_RESPONSE', 'ALLOTTED_TIMEOUT') THEN 'no answer'
            WHEN legs.hangup_reason IN ('CALL_REJECTED', 'USER_BUSY') THEN 'declined'
            ELSE 'other'
        END AS reason,
        legs.is_any_transfer AS transfer,
        calls.is_transferred
    FROM call_agents AS legs
    INNER JOIN calls ON legs.call_id = calls.call_id

    UNION ALL BY NAME

    SELECT
        answered_agent_id AS agent_id,
        call_id AS handled_call_id,
        talk_time_seconds,
        coalesce(disposition_id::VARCHAR, disposition_code) IS NOT NULL AS disposed
    FROM calls
    WHERE is_ended AND is_answered
),

counts AS (
    SELECT
        agent_id,
        arg_max(alias, (started_at, call_id, leg)) FILTER (alias IS NOT NULL AND agent_id IS NOT NULL) AS alias,
        count(leg) AS legs,
        count(*) FILTER (offered) AS offered_legs,
        count(*) FILTER (offered AND answered) AS answered_legs,
        count(*) FILTER (missed AND reason = 'lost race') AS lost_race_legs,
        count(*) FILTER (missed AND reason = 'caller hung up') AS caller_hangup_legs,
        count(*) FILTER (missed AND reason = 'no answer') AS no_answer_legs,
        count(*) FILTER (missed AND reason = 'declined') AS declined_legs,
        count(*) FILTER (missed AND reason = 'other') AS other_reason_legs,
        count(*) FILTER (missed AND reason = 'unknown') AS unknown_reason_legs,
        count(*) FILTER (transfer) AS transfer_legs,
        count(DISTINCT call_id) AS calls,
        count(DISTINCT call_id) FILTER (answered) AS answered_calls,
        count(DISTINCT call_id) FILTER (answered AND is_transferred) AS transferred_calls,
        count(handled_call_id) AS handled_calls,
        count(talk_time_seconds) AS talk_known_calls,
        coalesce(sum(talk_time_seconds), 0) AS talk_seconds,
        count(*) FILTER (disposed) AS disposed_calls
    FROM facts
    GROUP BY agent_id
)

SELECT
    *,
    talk_seconds / nullif(talk_known_calls, 0) AS mean_talk_seconds,
    disposed_calls / nullif(handled_calls, 0) AS disposition_coverage
FROM counts
