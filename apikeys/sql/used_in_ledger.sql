-- Returns the amount that counts against a limit since `start`, by the usage records. Counters are started, reconciled
-- and explained with these sums. They see the snapshot of the calling statement, so a record that a prune moves
-- meanwhile is counted once.
CREATE OR REPLACE FUNCTION apikeys_used_in_records(wanted bigint, start timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(CASE a_limit.measure
        WHEN 'requests' THEN 1
        WHEN 'tokens' THEN usage.prompt_tokens::bigint + usage.completion_tokens
        WHEN 'micropoints' THEN usage.cost_micropoints
        ELSE 0
    END), 0)::bigint
    FROM apikeys_limit AS a_limit
    CROSS JOIN LATERAL (
        -- With two branches, a key's own limit reads no more than the key's records.
        SELECT * FROM apikeys_usagerecord AS of_key
        WHERE of_key.key_id = a_limit.key_id AND of_key.created_at >= start
        UNION ALL
        SELECT * FROM apikeys_usagerecord AS of_team
        WHERE a_limit.key_id IS NULL AND of_team.team_id = a_limit.team_id AND of_team.created_at >= start
    ) AS usage
    WHERE a_limit.id = wanted
$$;

-- Returns the amount of the pruned days that begin in the period. Only a total reaches back to such a day.
CREATE OR REPLACE FUNCTION apikeys_used_in_days(wanted bigint, start timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(CASE a_limit.measure
        WHEN 'requests' THEN daily.requests
        WHEN 'tokens' THEN daily.prompt_tokens + daily.completion_tokens
        WHEN 'micropoints' THEN daily.cost_micropoints
        ELSE 0
    END), 0)::bigint
    FROM apikeys_limit AS a_limit
    CROSS JOIN LATERAL (
        SELECT * FROM apikeys_dailyusage AS of_key
        WHERE of_key.key_id = a_limit.key_id AND of_key.day >= start AT TIME ZONE 'UTC'
        UNION ALL
        SELECT * FROM apikeys_dailyusage AS of_team
        WHERE a_limit.key_id IS NULL AND of_team.team_id = a_limit.team_id AND of_team.day >= start AT TIME ZONE 'UTC'
    ) AS daily
    WHERE a_limit.id = wanted
$$;

CREATE OR REPLACE FUNCTION apikeys_used_in_ledger(wanted bigint, start timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT apikeys_used_in_records(wanted, start) + apikeys_used_in_days(wanted, start)
$$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_used_in_ledger(bigint, timestamptz);
DROP FUNCTION IF EXISTS apikeys_used_in_days(bigint, timestamptz);
DROP FUNCTION IF EXISTS apikeys_used_in_records(bigint, timestamptz);
