-- Returns the ids of all limits of these keys and teams. A session plans PL/pgSQL once, unlike SQL.
CREATE OR REPLACE FUNCTION apikeys_limits_met(keys text[], teams text[]) RETURNS bigint[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN ARRAY(
        SELECT a_limit.id FROM apikeys_limit AS a_limit WHERE a_limit.key_id = ANY (keys)
        UNION ALL
        SELECT a_limit.id FROM apikeys_limit AS a_limit WHERE a_limit.key_id IS NULL AND a_limit.team_id = ANY (teams));
END $$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_limits_met(text[], text[]);
