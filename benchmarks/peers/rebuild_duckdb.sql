-- One day's raw records to one day's tables, as benchmarks/peers/rebuild_duckdb.py runs it. $day, $rung (seconds).

-- Each content of an id, in the order of reading; equal contents that follow each other are one.
CREATE OR REPLACE TEMP TABLE versions AS
WITH segments AS (
    SELECT * FROM read_parquet($segments)
),
reads AS (
    SELECT call_id, read_at, content_hash, any_value(http_status) AS http_status, max_by(started_at, fetched_at) AS started_at,
        max_by(is_ended, fetched_at) AS is_ended, max_by(error, fetched_at) AS error
    FROM (SELECT * EXCLUDE (payload), unnest(reads) AS read_at FROM segments)
    GROUP BY call_id, read_at, content_hash
),
marked AS (
    SELECT *, coalesce(content_hash <> lag(content_hash) OVER by_time, true) AS is_first
    FROM reads
    WINDOW by_time AS (PARTITION BY call_id ORDER BY read_at, content_hash)
),
runs AS (
    SELECT *, count(*) FILTER (is_first) OVER (PARTITION BY call_id ORDER BY read_at, content_hash) AS run
    FROM marked
),
grouped AS (
    SELECT call_id, run, content_hash, any_value(http_status) AS http_status, max_by(started_at, read_at) AS started_at,
        max_by(is_ended, read_at) AS is_ended, max_by(error, read_at) AS error, min(read_at) AS first_read_at,
        max(read_at) AS last_read_at, count(*) AS read_count
    FROM runs
    GROUP BY call_id, run, content_hash
)
SELECT *,
    row_number() OVER by_time AS place,
    count(*) OVER (PARTITION BY call_id) AS places,
    min(first_read_at) OVER (PARTITION BY call_id) AS call_first_read_at,
    (sum(read_count) OVER (PARTITION BY call_id))::BIGINT AS call_read_count,
    max_by(started_at, run) OVER (PARTITION BY call_id) AS newest_started_at
FROM grouped
WHERE http_status = 200 AND error IS NULL AND started_at IS NOT NULL
WINDOW by_time AS (PARTITION BY call_id ORDER BY first_read_at, last_read_at, content_hash);

DELETE FROM versions WHERE (newest_started_at AT TIME ZONE 'UTC')::DATE <> $day::DATE;

-- What the newest one says. What is not of its documented type becomes NULL.
CREATE OR REPLACE TEMP TABLE bodies AS
SELECT versions.* EXCLUDE (content_hash, run), payload
FROM versions
JOIN (SELECT call_id, content_hash, any_value(payload) AS payload FROM read_parquet($segments) GROUP BY ALL)
    USING (call_id, content_hash);

CREATE OR REPLACE TEMP TABLE parsed AS
SELECT * EXCLUDE (payload), from_json(decode(payload), '{"calls": {
    "id": "BIGINT", "started_at": "DOUBLE", "is_inbound": "BOOLEAN", "is_answered": "BOOLEAN",
    "is_in_queue": "BOOLEAN", "is_ended": "BOOLEAN", "type": "VARCHAR", "duration": "BIGINT", "talk_time": "BIGINT",
    "requested_callback": "BOOLEAN", "is_answered_within_sla": "BOOLEAN", "is_data_cached": "BOOLEAN",
    "original_call_id": "BIGINT",
    "contact": {"id": "BIGINT", "full_name": "VARCHAR", "number": "VARCHAR", "national_number": "VARCHAR",
        "number_country_code": "VARCHAR", "list_ids": ["BIGINT"]},
    "number": {"id": "BIGINT", "number": "VARCHAR", "alias": "VARCHAR"},
    "campaign": {"id": "BIGINT", "name": "VARCHAR"},
    "ring_group": {"id": "BIGINT", "name": "VARCHAR"},
    "ivr": {"id": "BIGINT", "name": "VARCHAR"},
    "disposition": {"id": "BIGINT", "code": "VARCHAR", "note": "VARCHAR"},
    "agents": ["BIGINT"],
    "all_agents": [{"id": "BIGINT", "user_id": "BIGINT", "alias": "VARCHAR", "sip": "VARCHAR",
        "started_at": "DOUBLE", "type": "VARCHAR", "is_any_transfer": "BOOLEAN", "hangup_reason": "VARCHAR"}],
    "answered_agents": [{"id": "BIGINT", "user_id": "BIGINT", "alias": "VARCHAR", "sip": "VARCHAR",
        "started_at": "DOUBLE", "type": "VARCHAR", "is_any_transfer": "BOOLEAN", "hangup_reason": "VARCHAR"}],
    "external_numbers": [{"number": "VARCHAR", "is_any_transfer": "BOOLEAN"}],
    "recordings": [{"id": "BIGINT", "url": "VARCHAR"}],
    "tags": ["VARCHAR"]}}').calls AS body
FROM bodies
WHERE place = places;

CREATE OR REPLACE MACRO name_of(given) AS
    CASE WHEN lower(trim(given)) NOT IN ('', 'null', 'null null') THEN trim(given) END;
CREATE OR REPLACE MACRO instant_of(given) AS
    CASE WHEN given > 0 THEN make_timestamptz((given * 1000000)::BIGINT) END;

CREATE OR REPLACE TEMP TABLE legs AS
WITH rung AS (
    SELECT call_id, place, leg, row_number() OVER (PARTITION BY call_id, leg.id, leg.started_at ORDER BY place) AS nth
    FROM (SELECT call_id, generate_subscripts(body.all_agents, 1) AS place, unnest(body.all_agents) AS leg FROM parsed)
),
answered AS (
    SELECT call_id, place, leg, row_number() OVER (PARTITION BY call_id, leg.id, leg.started_at ORDER BY place) AS nth
    FROM (
        SELECT call_id, generate_subscripts(body.answered_agents, 1) AS place, unnest(body.answered_agents) AS leg
        FROM parsed
    )
),
matched AS (
    SELECT coalesce(rung.call_id, answered.call_id) AS call_id, rung.call_id IS NULL AS is_surplus,
        coalesce(rung.place, answered.place) AS place,
        CASE WHEN rung.call_id IS NULL THEN answered.leg ELSE rung.leg END AS leg, answered.call_id IS NOT NULL AS is_answered
    FROM rung
    FULL JOIN answered
        ON rung.call_id = answered.call_id AND rung.leg.id IS NOT DISTINCT FROM answered.leg.id
        AND rung.leg.started_at IS NOT DISTINCT FROM answered.leg.started_at AND rung.nth = answered.nth
)
SELECT call_id, row_number() OVER (PARTITION BY call_id ORDER BY is_surplus, place) - 1 AS leg,
    nullif(leg.id, 0) AS agent_id, nullif(leg.user_id, 0) AS user_id, name_of(leg.alias) AS alias,
    nullif(leg.sip, '') AS sip, nullif(leg.type, '') AS type, instant_of(leg.started_at) AS started_at, is_answered,
    leg.is_any_transfer AS is_any_transfer, nullif(leg.hangup_reason, '') AS hangup_reason
FROM matched;

COPY (SELECT * FROM legs ORDER BY call_id, leg) TO $call_agents $options;

CREATE OR REPLACE TEMP TABLE kept_recordings AS
SELECT call_id, row_number() OVER (PARTITION BY call_id ORDER BY place) - 1 AS position,
    nullif(recording.id, 0) AS recording_id, nullif(recording.url, '') AS url
FROM (
    SELECT call_id, generate_subscripts(body.recordings, 1) AS place, unnest(body.recordings) AS recording FROM parsed
)
WHERE nullif(recording.id, 0) IS NOT NULL OR nullif(recording.url, '') IS NOT NULL;

COPY (SELECT * FROM kept_recordings ORDER BY call_id, position) TO $recordings $options;

COPY (
    SELECT * FROM (
        SELECT call_id, nullif(body.disposition.id, 0) AS disposition_id, nullif(body.disposition.code, '') AS code,
            nullif(body.disposition.note, '') AS note
        FROM parsed
    )
    WHERE disposition_id IS NOT NULL OR code IS NOT NULL OR note IS NOT NULL
    ORDER BY call_id
) TO $dispositions $options;

COPY (
    SELECT call_id, row_number() OVER (PARTITION BY call_id ORDER BY place) - 1 AS position, tag
    FROM (SELECT call_id, generate_subscripts(body.tags, 1) AS place, unnest(body.tags) AS tag FROM parsed)
    WHERE tag <> ''
    ORDER BY call_id, position
) TO $call_tags $options;

COPY (
    SELECT call_id, row_number() OVER (PARTITION BY call_id ORDER BY place) - 1 AS position,
        nullif(external.number, '') AS number, external.is_any_transfer AS is_any_transfer
    FROM (
        SELECT call_id, generate_subscripts(body.external_numbers, 1) AS place,
            unnest(body.external_numbers) AS external
        FROM parsed
    )
    WHERE external IS NOT NULL
    ORDER BY call_id, position
) TO $external_numbers $options;

COPY (
    WITH several AS (
        SELECT call_id, place, first_read_at, decode(payload)::JSON AS body FROM bodies WHERE places > 1
    ),
    fields AS (
        SELECT several.call_id, several.place, replace(substr(tree.fullkey, 9), '"', '') AS field, tree.value::VARCHAR AS value
        FROM several, json_tree(several.body) AS tree
        WHERE tree.fullkey LIKE '$.calls.%' AND tree.path NOT LIKE '%[%' AND tree.fullkey NOT LIKE '%[%'
            AND (tree.type <> 'OBJECT' OR tree.value::VARCHAR = '{}')
    ),
    steps AS (
        SELECT call_id, place, first_read_at FROM several WHERE place > 1
    ),
    later AS (
        SELECT steps.call_id, steps.place, steps.first_read_at, fields.field, fields.value
        FROM steps
        JOIN fields USING (call_id, place)
    ),
    earlier AS (
        SELECT steps.call_id, steps.place, steps.first_read_at, fields.field, fields.value
        FROM steps
        JOIN fields ON fields.call_id = steps.call_id AND fields.place = steps.place - 1
    )
    SELECT call_id, field, earlier.value AS old_value, later.value AS new_value,
        coalesce(later.first_read_at, earlier.first_read_at) AS changed_at
    FROM later
    FULL JOIN earlier USING (call_id, place, field)
    WHERE earlier.value IS DISTINCT FROM later.value
    ORDER BY call_id, changed_at, field
) TO $call_changes $options;

COPY (
    SELECT call_id, started_at, started_at AT TIME ZONE 'UTC' AS started_at_local,
        body.is_inbound AS is_inbound, body.is_answered AS is_answered, body.is_in_queue AS is_in_queue, is_ended,
        nullif(body.type, '') AS type, body.duration AS duration_seconds, body.talk_time AS talk_time_seconds,
        body.requested_callback AS requested_callback, body.is_answered_within_sla AS is_answered_within_sla,
        body.is_data_cached AS is_data_cached, nullif(body.original_call_id, 0) AS original_call_id,
        nullif(body.contact.id, 0) AS contact_id, name_of(body.contact.full_name) AS contact_full_name,
        nullif(body.contact.number, '') AS contact_number,
        nullif(body.contact.national_number, '') AS contact_national_number,
        nullif(body.contact.number_country_code, '') AS contact_number_country_code,
        body.contact.list_ids AS contact_list_ids,
        nullif(body.number.id, 0) AS number_id, nullif(body.number.number, '') AS number,
        name_of(body.number.alias) AS number_alias,
        nullif(body.campaign.id, 0) AS campaign_id, name_of(body.campaign.name) AS campaign_name,
        nullif(body.ring_group.id, 0) AS ring_group_id, name_of(body.ring_group.name) AS ring_group_name,
        nullif(body.ivr.id, 0) AS ivr_id, name_of(body.ivr.name) AS ivr_name,
        nullif(body.disposition.id, 0) AS disposition_id, nullif(body.disposition.code, '') AS disposition_code,
        body.agents AS agent_ids, nullif(body.answered_agents[1].id, 0) AS answered_agent_id,
        coalesce(legs.leg_count, 0) AS agent_leg_count, coalesce(legs.answered_count, 0) AS answered_leg_count,
        coalesce(list_bool_or(list_transform(body.all_agents, lambda leg: leg.is_any_transfer)), false)
            OR coalesce(list_bool_or(list_transform(body.external_numbers, lambda given: given.is_any_transfer)), false)
            AS is_transferred,
        coalesce(kept.recording_count, 0) AS recording_count, body.tags AS tags,
        NULL::TIMESTAMPTZ AS ended_at, NULL::BIGINT AS waiting_seconds, NULL::BOOLEAN AS is_abandoned,
        call_read_count AS read_count, call_first_read_at AS first_read_at, last_read_at,
        first_read_at AS last_changed_at,
        coalesce(is_ended, false) AND last_read_at >= started_at + to_seconds($rung) AS is_final
    FROM parsed
    LEFT JOIN (
        SELECT call_id, count(*) AS leg_count, count(*) FILTER (is_answered) AS answered_count FROM legs GROUP BY call_id
    ) AS legs USING (call_id)
    LEFT JOIN (SELECT call_id, count(*) AS recording_count FROM kept_recordings GROUP BY call_id) AS kept USING (call_id)
    ORDER BY started_at, call_id
) TO $calls $options;
