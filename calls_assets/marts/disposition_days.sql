-- One row per disposition × campaign × direction.
WITH counts AS (
    SELECT
        disposition_id,
        disposition_code,
        campaign_id,
        campaign_name,
        is_inbound,
        count(*) AS calls,
        count(*) FILTER (is_ended AND is_answered) AS connected_calls,
        count(talk_time_seconds) FILTER (is_ended AND is_answered) AS talk_known_calls,
        coalesce(sum(talk_time_seconds) FILTER (is_ended AND is_answered), 0) AS talk_seconds
    FROM calls
    GROUP BY ALL
)

SELECT
    *,
    sum(calls) OVER (PARTITION BY campaign_id, campaign_name, is_inbound) AS group_calls,
    calls / group_calls AS share,
    talk_seconds / nullif(talk_known_calls, 0) AS mean_talk_seconds
FROM counts
