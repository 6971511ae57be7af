-- One row per half hour of local time × direction × campaign × ring group. Counts add up; ratios come from counts.
-- A condition on a value that is NULL does not hold: what the vendor did not say is counted in no group but the first.
WITH facts AS (
    SELECT
        *,
        started_at - (started_at_local - time_bucket(INTERVAL 30 MINUTE, started_at_local)) AS interval_start_at,
        time_bucket(INTERVAL 30 MINUTE, started_at_local) AS interval_start_local,
        is_ended IS TRUE AS e,
        is_ended IS TRUE AND is_inbound IS TRUE AS offered,
        is_ended IS TRUE AND is_inbound IS FALSE AS outbound,
        is_ended IS TRUE AND is_answered IS TRUE AS connected,
        is_answered IS TRUE AS answered,
        is_answered IS FALSE AS unanswered,
        requested_callback IS TRUE AS callback
    FROM calls
),

counts AS (
    SELECT
        interval_start_at,
        interval_start_local,
        is_inbound,
        campaign_id,
        campaign_name,
        ring_group_id,
        ring_group_name,
        count(*) AS calls,
        count(*) FILTER (e) AS ended_calls,
        count(*) FILTER (connected) AS connected_calls,
        count(*) FILTER (offered) AS offered_calls,
        count(*) FILTER (offered AND answered) AS answered_calls,
        count(*) FILTER (offered AND unanswered AND NOT callback) AS unanswered_calls,
        count(*) FILTER (offered AND callback) AS callbacks_requested,
        count(*) FILTER (offered AND unanswered AND callback) AS unanswered_callback_calls,
        count(*) FILTER (offered AND answered AND is_answered_within_sla) AS answered_within_sla_calls,
        count(*) FILTER (offered AND answered AND is_answered_within_sla IS NULL) AS sla_unknown_calls,
        count(*) FILTER (offered AND is_abandoned IS NOT NULL) AS abandonment_known_calls,
        count(*) FILTER (offered AND is_abandoned) AS known_abandoned_calls,
        count(*) FILTER (offered AND answered AND waiting_seconds IS NOT NULL) AS wait_known_calls,
        sum(waiting_seconds) FILTER (offered AND answered) AS answered_wait_seconds,
        count(talk_time_seconds) FILTER (connected) AS talk_known_calls,
        coalesce(sum(talk_time_seconds) FILTER (connected), 0) AS talk_seconds,
        quantile_cont(talk_time_seconds, 0.5) FILTER (connected) AS p50_talk_seconds,
        quantile_cont(talk_time_seconds, 0.9) FILTER (connected) AS p90_talk_seconds,
        count(*) FILTER (connected AND is_transferred) AS transferred_calls,
        count(*) FILTER (connected AND coalesce(disposition_id::VARCHAR, disposition_code) IS NOT NULL) AS disposed_calls,
        count(*) FILTER (connected AND recording_count > 0) AS recorded_calls,
        count(*) FILTER (outbound) AS outbound_calls,
        count(*) FILTER (outbound AND answered) AS outbound_answered_calls
    FROM facts
    GROUP BY ALL
)

SELECT
    *,
    offered_calls - unanswered_callback_calls AS offered_without_callbacks_calls,
    -- Without webhook data nobody knows: NULL, not 0.
    CASE WHEN abandonment_known_calls > 0 THEN known_abandoned_calls END AS abandoned_calls,
    answered_calls / nullif(offered_calls, 0) AS answer_rate,
    answered_within_sla_calls / nullif(offered_calls, 0) AS service_level_strict,
    answered_within_sla_calls / nullif(answered_calls, 0) AS service_level_answered,
    answered_within_sla_calls / nullif(offered_without_callbacks_calls, 0) AS service_level_without_callbacks,
    abandoned_calls / nullif(abandonment_known_calls, 0) AS abandonment_rate,
    answered_wait_seconds / nullif(wait_known_calls, 0) AS average_speed_of_answer_seconds,
    talk_seconds / nullif(talk_known_calls, 0) AS mean_talk_seconds,
    transferred_calls / nullif(connected_calls, 0) AS transfer_rate,
    disposed_calls / nullif(connected_calls, 0) AS disposition_coverage,
    recorded_calls / nullif(connected_calls, 0) AS recording_coverage,
    outbound_answered_calls / nullif(outbound_calls, 0) AS outbound_connect_rate
FROM counts
