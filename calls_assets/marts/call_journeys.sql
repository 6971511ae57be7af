-- One row per chain of calls whose first call is in the week that begins on $monday. Reads `journey_days`: the two
-- weeks before, to see what its calls continue and whether chains have to be cut, and the week after, to follow them.
WITH RECURSIVE ordered AS (
    SELECT *, epoch_us(started_at) / 1e6 AS seconds, date_trunc('week', call_date)::DATE AS week FROM calls
),

-- What each call continues: at most one call, which began before it.
named AS (
    SELECT call.call_id, earlier.call_id AS previous_id
    FROM ordered AS call
    INNER JOIN ordered AS earlier ON call.original_call_id = earlier.call_id
    WHERE
        (earlier.started_at, earlier.call_id) < (call.started_at, call.call_id)
        AND call.seconds - earlier.seconds <= 7 * 86400
        AND call.call_date - earlier.call_date <= 7
),

same_contact AS (
    SELECT
        call_id,
        lag(call_id) OVER contact AS previous_id,
        seconds - lag(seconds) OVER contact AS pause,
        call_date - lag(call_date) OVER contact AS pause_days
    FROM ordered
    WHERE is_inbound AND contact_id IS NOT NULL
    WINDOW contact AS (PARTITION BY contact_id ORDER BY started_at, call_id)
),

linked AS (
    SELECT
        call_id,
        week,
        coalesce(named.previous_id, same_contact.previous_id) AS previous_id,
        CASE
            WHEN named.previous_id IS NOT NULL THEN 'continued'
            WHEN same_contact.pause <= 15 * 60 THEN 'redial'
            WHEN same_contact.pause IS NOT NULL THEN 'repeat'
        END AS link
    FROM ordered
    LEFT JOIN named USING (call_id)
    LEFT JOIN (
        SELECT * FROM same_contact WHERE pause <= 7 * 86400 AND pause_days <= 7
    ) AS same_contact USING (call_id)
),

-- The first call of each call's chain: every step of the recursion looks twice as far back.
uncut (call_id, first_id) USING KEY (call_id) AS (
    SELECT call_id, coalesce(previous_id, call_id) FROM linked
    UNION
    SELECT step.call_id, further.first_id
    FROM uncut AS step
    INNER JOIN recurring.uncut AS further ON step.first_id = further.call_id
    WHERE further.first_id <> step.first_id
),

-- A chain that comes from before the last week has gone through all of it: its link into this week is cut.
cut AS (
    SELECT call.call_id, call.link, call.previous_id
    FROM linked AS call
    INNER JOIN uncut USING (call_id)
    INNER JOIN linked AS first ON uncut.first_id = first.call_id
    INNER JOIN linked AS previous ON call.previous_id = previous.call_id
    WHERE previous.week = call.week OR first.week >= call.week - 7
),

chain (call_id, first_id) USING KEY (call_id) AS (
    SELECT call_id, coalesce(cut.previous_id, call_id) FROM linked LEFT JOIN cut USING (call_id)
    UNION
    SELECT step.call_id, further.first_id
    FROM chain AS step
    INNER JOIN recurring.chain AS further ON step.first_id = further.call_id
    WHERE further.first_id <> step.first_id
),

members AS (
    SELECT chain.first_id, cut.link, call.*
    FROM chain
    INNER JOIN ordered AS first ON chain.first_id = first.call_id
    INNER JOIN ordered AS call ON chain.call_id = call.call_id
    LEFT JOIN cut ON chain.call_id = cut.call_id
    WHERE first.week = $monday
),

answering AS (
    SELECT members.first_id, count(DISTINCT legs.agent_id) AS agents
    FROM members
    INNER JOIN call_agents AS legs ON members.call_id = legs.call_id
    WHERE legs.is_answered
    GROUP BY members.first_id
),

journeys AS (
    SELECT
        first_id AS first_call_id,
        max_by(call_id, (started_at, call_id)) AS last_call_id,
        max(started_at) AS last_started_at,
        count(*) AS calls,
        count(*) FILTER (is_ended AND is_inbound) AS inbound_calls,
        count(*) FILTER (is_ended AND is_answered) AS connected_calls,
        count(*) FILTER (is_ended AND is_inbound AND is_answered) AS answered_calls,
        count(*) FILTER (link = 'continued') AS continued_calls,
        count(*) FILTER (link = 'redial') AS redial_calls,
        count(*) FILTER (link = 'repeat') AS repeat_calls,
        coalesce(sum(talk_time_seconds) FILTER (is_ended AND is_answered), 0) AS talk_seconds
    FROM members
    GROUP BY first_id
),

-- The next call of a chain would come within 7 days, and in the week after the first call's at the latest.
grown AS (
    SELECT
        first_id AS first_call_id,
        len(list_filter($unknown_days, lambda day: day BETWEEN min(call_date) AND least(max(call_date) + 7, $monday + 13)))
        = 0 AS is_complete
    FROM members
    GROUP BY first_id
)

SELECT
    journeys.*,
    first.call_date,
    first.started_at AS first_started_at,
    first.started_at_local AS first_started_at_local,
    first.is_inbound,
    first.contact_id,
    first.campaign_id,
    first.campaign_name,
    first.ring_group_id,
    first.ring_group_name,
    coalesce(answering.agents, 0) AS agents,
    date_diff('second', first.started_at, last_started_at) AS span_seconds,
    is_complete,
    CASE
        WHEN inbound_calls = 0 THEN NULL
        WHEN repeat_calls > 0 THEN FALSE
        WHEN is_complete THEN answered_calls > 0
    END AS is_resolved_without_repeat
FROM journeys
INNER JOIN ordered AS first ON journeys.first_call_id = first.call_id
INNER JOIN grown ON journeys.first_call_id = grown.first_call_id
LEFT JOIN answering ON journeys.first_call_id = answering.first_id
