"""Reserve and settle: the counters of limits are changed here and nowhere else.

Both lock the counters that they touch in one order, by the limit's id. Amounts are integers throughout.
"""

from django.db import migrations

PERIODS = """
CREATE FUNCTION limit_period_start(period text, zone text, moment timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN period IN ('now', 'total') THEN timestamptz 'epoch'
        WHEN period = 'minute' THEN date_trunc('minute', moment)
        ELSE date_trunc(period, moment, zone)
    END
$$;

CREATE FUNCTION limit_period_end(period text, zone text, start timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN period IN ('now', 'total') THEN NULL
        WHEN period = 'minute' THEN start + interval '1 minute'
        ELSE ((start AT TIME ZONE zone) + ('1 ' || period)::interval) AT TIME ZONE zone
    END
$$;

-- A limit counts what its period has seen before it was made. The lock lets no record slip past the sum.
CREATE FUNCTION start_counter() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := limit_period_start(NEW.period, NEW.time_zone, clock_timestamp());
BEGIN
    LOCK TABLE apikeys_usagerecord IN SHARE MODE;
    INSERT INTO apikeys_counter (limit_id, period_start, used, reserved)
    SELECT NEW.id, start, used_in_ledger(NEW.id, start), 0
    ON CONFLICT (limit_id) DO UPDATE SET period_start = excluded.period_start, used = excluded.used, reserved = 0;
    RETURN NULL;
END $$;

CREATE FUNCTION used_in_ledger(wanted bigint, start timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(CASE a_limit.measure
        WHEN 'requests' THEN 1
        WHEN 'tokens' THEN usage.prompt_tokens + usage.completion_tokens
        WHEN 'micropoints' THEN usage.cost_micropoints
        ELSE 0
    END), 0)::bigint
    FROM apikeys_limit AS a_limit
    JOIN apikeys_usagerecord AS usage
        ON usage.created_at >= start AND usage.team_id = a_limit.team_id
        AND (a_limit.key_id IS NULL OR usage.key_id = a_limit.key_id)
    WHERE a_limit.id = wanted
$$;

CREATE TRIGGER start_counter AFTER INSERT ON apikeys_limit FOR EACH ROW EXECUTE FUNCTION start_counter();
CREATE TRIGGER restart_counter AFTER UPDATE ON apikeys_limit FOR EACH ROW
    WHEN ((OLD.team_id, OLD.key_id, OLD.measure, OLD.period, OLD.time_zone)
        IS DISTINCT FROM (NEW.team_id, NEW.key_id, NEW.measure, NEW.period, NEW.time_zone))
    EXECUTE FUNCTION start_counter();
CREATE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON apikeys_limit
    FOR EACH STATEMENT EXECUTE FUNCTION notify_policy_changed();
CREATE TRIGGER policy_updated AFTER UPDATE ON apikeys_limit FOR EACH ROW
    WHEN ((OLD.team_id, OLD.key_id) IS DISTINCT FROM (NEW.team_id, NEW.key_id))
    EXECUTE FUNCTION notify_policy_changed();
"""

RESERVE = """
-- Takes the items in turn: each is admitted at all of its limits, or refused and costs nothing.
CREATE FUNCTION reserve(items jsonb) RETURNS TABLE (ordinal int, refused_by bigint, limits jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    item record;
    moment timestamptz;
    met bigint[];
    amounts bigint[];
    starts timestamptz[];
    keys text[];
    teams text[];
BEGIN
    SELECT array_agg(asked.key_id), array_agg(asked.team_id) INTO keys, teams
    FROM jsonb_to_recordset(items) AS asked(team_id text, key_id text);
    PERFORM 1 FROM apikeys_counter AS counter
    WHERE counter.limit_id = ANY (ARRAY(
        SELECT a_limit.id FROM apikeys_limit AS a_limit
        WHERE a_limit.key_id = ANY (keys) OR (a_limit.key_id IS NULL AND a_limit.team_id = ANY (teams))
    ))
    ORDER BY counter.limit_id FOR UPDATE;
    -- Told after the locks are held, so that the windows of a counter never run backwards.
    moment := clock_timestamp();
    FOR item IN
        SELECT * FROM jsonb_to_recordset(items) AS asked(
            ordinal int, id text, server_id text, team_id text, key_id text, app_id text, endpoint text, model text,
            prompt_tokens bigint, tokens bigint, prompt_micropoints bigint, micropoints bigint)
        ORDER BY asked.ordinal
    LOOP
        UPDATE apikeys_counter AS counter SET
            period_start = limit_period_start(a_limit.period, a_limit.time_zone, moment), used = 0, reserved = 0
        FROM apikeys_limit AS a_limit
        WHERE a_limit.id = counter.limit_id
            AND (a_limit.key_id = item.key_id OR (a_limit.key_id IS NULL AND a_limit.team_id = item.team_id))
            AND counter.period_start < limit_period_start(a_limit.period, a_limit.time_zone, moment);
        ordinal := item.ordinal;
        IF EXISTS (SELECT 1 FROM apikeys_reservation AS reservation WHERE reservation.id = item.id) THEN
            -- Asked again because the connection broke before the answer came: it was admitted.
            refused_by := NULL;
            limits := NULL;
            RETURN NEXT;
            CONTINUE;
        END IF;
        SELECT
            array_agg(needed.limit_id ORDER BY needed.limit_id),
            array_agg(needed.amount ORDER BY needed.limit_id),
            array_agg(needed.period_start ORDER BY needed.limit_id),
            -- Of several that refuse, the one that holds longest is named.
            (array_agg(needed.limit_id ORDER BY needed.is_spent DESC, needed.ends_at DESC NULLS FIRST)
                FILTER (WHERE needed.used + needed.reserved + needed.amount > needed.maximum))[1],
            jsonb_agg(jsonb_build_object(
                'id', needed.limit_id, 'is_team', needed.is_team, 'measure', needed.measure, 'period', needed.period,
                'amount', needed.maximum, 'used', needed.used, 'reserved', needed.reserved, 'asked', needed.amount,
                'resets_in', extract(epoch FROM needed.ends_at - moment)))
        INTO met, amounts, starts, refused_by, limits
        FROM (
            SELECT counter.limit_id, counter.period_start, counter.used, counter.reserved,
                a_limit.amount AS maximum, a_limit.measure, a_limit.period, a_limit.key_id IS NULL AS is_team,
                counter.used >= a_limit.amount AND a_limit.period NOT IN ('now', 'minute') AS is_spent,
                limit_period_end(a_limit.period, a_limit.time_zone, counter.period_start) AS ends_at,
                CASE a_limit.measure WHEN 'tokens' THEN item.tokens WHEN 'micropoints' THEN item.micropoints
                    ELSE 1 END AS amount
            FROM apikeys_limit AS a_limit JOIN apikeys_counter AS counter ON counter.limit_id = a_limit.id
            WHERE a_limit.key_id = item.key_id OR (a_limit.key_id IS NULL AND a_limit.team_id = item.team_id)
        ) AS needed;
        IF refused_by IS NULL AND met IS NOT NULL THEN
            UPDATE apikeys_counter AS counter SET reserved = counter.reserved + needed.amount
            FROM unnest(met, amounts) AS needed(limit_id, amount)
            WHERE counter.limit_id = needed.limit_id;
            INSERT INTO apikeys_reservation (id, server_id, team_id, key_id, app_id, endpoint, model, prompt_tokens,
                prompt_micropoints, limit_ids, amounts, period_starts, admitted_at)
            VALUES (item.id, item.server_id, item.team_id, item.key_id, item.app_id, item.endpoint, item.model,
                item.prompt_tokens, item.prompt_micropoints, met, amounts, starts, moment);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
"""

SETTLE = """
-- Writes usage to the ledger, charges it, and gives back what was reserved for it. Once for each id, however often
-- it is called; only a row `lost` is replaced, by what really came of the request. Returns the ids that were new.
CREATE FUNCTION settle(items jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    released apikeys_reservation[];
    undone apikeys_usagerecord[];
    written apikeys_usagerecord[];
    ids text[];
    -- A batch is made of requests that ended, or of those that are written off, never of both.
    is_expiry boolean := items -> 0 ->> 'ending' = 'lost';
    met bigint[];
BEGIN
    -- Rows are found by arrays of their keys, here and below: whatever the planner believes of a table's size, it
    -- then looks each of them up.
    SELECT coalesce(array_agg(item.id), '{}') INTO ids FROM jsonb_to_recordset(items) AS item(id text);
    -- Reservations first: whoever removes one settles it.
    WITH gone AS (
        DELETE FROM apikeys_reservation AS reservation WHERE reservation.id = ANY (ids) RETURNING reservation.*
    )
    SELECT coalesce(array_agg(gone::apikeys_reservation), '{}') INTO released FROM gone;

    -- What was written off comes back out before what really happened goes in.
    WITH taken_back AS (
        DELETE FROM apikeys_usagerecord AS usage
        WHERE usage.id = ANY (ids) AND usage.ending = 'lost' AND NOT is_expiry
        RETURNING usage.*
    )
    SELECT coalesce(array_agg(taken_back::apikeys_usagerecord), '{}') INTO undone FROM taken_back;

    WITH item AS (
        SELECT asked.*, coalesce(lost.created_at, reserved.admitted_at, statement_timestamp()) AS moment
        FROM jsonb_to_recordset(items) AS asked(
            id text, team_id text, key_id text, endpoint text, status smallint, duration_ms int, app_id text,
            model text, prompt_tokens int, completion_tokens int, token_source text, cost_micropoints bigint,
            ending text, time_to_first_byte_ms int, client_address inet)
        LEFT JOIN unnest(released) AS reserved ON reserved.id = asked.id
        LEFT JOIN unnest(undone) AS lost ON lost.id = asked.id
    ),
    recorded AS (
        INSERT INTO apikeys_usagerecord (
            id, team_id, key_id, endpoint, status, duration_ms, app_id, model, prompt_tokens, completion_tokens,
            token_source, cost_micropoints, ending, time_to_first_byte_ms, client_address, created_at)
        SELECT id, team_id, key_id, endpoint, status, duration_ms, app_id, model, prompt_tokens, completion_tokens,
            token_source, cost_micropoints, ending, time_to_first_byte_ms, client_address, moment
        FROM item
        ON CONFLICT (id) DO NOTHING
        RETURNING apikeys_usagerecord.*
    ),
    activity AS (
        INSERT INTO apikeys_keyactivity (key_id, last_used_at, last_used_from)
        SELECT DISTINCT ON (key_id) key_id, statement_timestamp(), client_address FROM item
        WHERE ending <> 'lost' ORDER BY key_id
        ON CONFLICT (key_id) DO UPDATE
        SET last_used_at = greatest(excluded.last_used_at, apikeys_keyactivity.last_used_at),
            last_used_from = excluded.last_used_from
    )
    SELECT coalesce(array_agg(recorded::apikeys_usagerecord), '{}') INTO written FROM recorded;

    RETURN QUERY SELECT id::text FROM unnest(written);
    -- Most requests meet no limit, and are done here.
    SELECT coalesce(array_agg(a_limit.id), '{}') INTO met FROM apikeys_limit AS a_limit
    WHERE a_limit.key_id = ANY (ARRAY(SELECT key_id FROM unnest(written || undone)))
        OR (a_limit.key_id IS NULL AND a_limit.team_id = ANY (ARRAY(SELECT team_id FROM unnest(written || undone))));
    IF met = '{}' AND released = '{}' THEN
        RETURN;
    END IF;

    WITH charge AS (
        SELECT a_limit.id AS limit_id, part.moment, part.sign * CASE a_limit.measure
            WHEN 'requests' THEN 1
            WHEN 'tokens' THEN part.tokens
            WHEN 'micropoints' THEN part.cost_micropoints
            ELSE 0
        END AS amount
        FROM (
            SELECT 1 AS sign, key_id, team_id, created_at AS moment, prompt_tokens + completion_tokens AS tokens,
                cost_micropoints FROM unnest(written)
            UNION ALL
            SELECT -1, key_id, team_id, created_at, prompt_tokens + completion_tokens, cost_micropoints
            FROM unnest(undone)
        ) AS part
        JOIN apikeys_limit AS a_limit ON a_limit.id = ANY (met)
            AND (a_limit.key_id = part.key_id OR (a_limit.key_id IS NULL AND a_limit.team_id = part.team_id))
    ),
    given_back AS (
        SELECT part.* FROM unnest(released) AS reservation,
            LATERAL unnest(reservation.limit_ids, reservation.amounts, reservation.period_starts)
                AS part(limit_id, amount, period_start)
    ),
    locked AS MATERIALIZED (
        SELECT counter.limit_id, counter.period_start AS old_start, a_limit.period, a_limit.time_zone
        FROM apikeys_counter AS counter JOIN apikeys_limit AS a_limit ON a_limit.id = counter.limit_id
        WHERE counter.limit_id = ANY (ARRAY(SELECT limit_id FROM charge UNION ALL SELECT limit_id FROM given_back))
        ORDER BY counter.limit_id FOR UPDATE OF counter
    ),
    target AS (
        SELECT limit_id, old_start, greatest(old_start, coalesce((
            SELECT limit_period_start(locked.period, locked.time_zone, max(charge.moment))
            FROM charge WHERE charge.limit_id = locked.limit_id), old_start)) AS start
        FROM locked
    )
    UPDATE apikeys_counter AS counter SET
        period_start = target.start,
        used = CASE WHEN target.start = target.old_start THEN counter.used ELSE 0 END + coalesce((
            SELECT sum(charge.amount) FROM charge
            WHERE charge.limit_id = counter.limit_id AND charge.moment >= target.start), 0),
        reserved = greatest(0, CASE WHEN target.start = target.old_start THEN counter.reserved ELSE 0 END - coalesce((
            SELECT sum(given_back.amount) FROM given_back
            WHERE given_back.limit_id = counter.limit_id AND given_back.period_start = target.start), 0))
    FROM target WHERE counter.limit_id = target.limit_id;
END $$;
"""

EXPIRE = """
-- Settles what processes left behind whose heartbeat is gone: the prompt's bound is charged, the rest given back.
CREATE FUNCTION expire_reservations(silence interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    items jsonb;
BEGIN
    SELECT jsonb_agg(jsonb_build_object(
        'id', left_behind.id, 'team_id', left_behind.team_id, 'key_id', left_behind.key_id,
        'app_id', left_behind.app_id, 'endpoint', left_behind.endpoint, 'model', left_behind.model,
        'prompt_tokens', left_behind.prompt_tokens, 'completion_tokens', 0, 'token_source', 'bound',
        'cost_micropoints', left_behind.prompt_micropoints, 'status', 0, 'ending', 'lost',
        'duration_ms', least(2147483647, extract(epoch FROM clock_timestamp() - left_behind.admitted_at) * 1000)::int))
    INTO items
    FROM (
        SELECT reservation.* FROM apikeys_reservation AS reservation
        WHERE reservation.admitted_at < clock_timestamp() - silence AND NOT EXISTS (
            SELECT 1 FROM apikeys_serverprocess AS server
            WHERE server.id = reservation.server_id AND server.heartbeat_at > clock_timestamp() - silence)
        ORDER BY reservation.id LIMIT 500 FOR UPDATE SKIP LOCKED
    ) AS left_behind;
    IF items IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM settle(items);
    RETURN jsonb_array_length(items);
END $$;
"""

CONSTRAINT = """
ALTER TABLE apikeys_limit ADD CONSTRAINT limit_key_in_team
    FOREIGN KEY (key_id, team_id) REFERENCES apikeys_apikey (id, team_id) DEFERRABLE INITIALLY DEFERRED;
"""

UNDO = """
ALTER TABLE apikeys_limit DROP CONSTRAINT limit_key_in_team;
DROP FUNCTION expire_reservations(interval);
DROP FUNCTION settle(jsonb);
DROP FUNCTION reserve(jsonb);
DROP TRIGGER policy_updated ON apikeys_limit;
DROP TRIGGER policy_inserted_or_deleted ON apikeys_limit;
DROP TRIGGER restart_counter ON apikeys_limit;
DROP TRIGGER start_counter ON apikeys_limit;
DROP FUNCTION used_in_ledger(bigint, timestamptz);
DROP FUNCTION start_counter();
DROP FUNCTION limit_period_end(text, text, timestamptz);
DROP FUNCTION limit_period_start(text, text, timestamptz);
"""


class Migration(migrations.Migration):
    dependencies = [("apikeys", "0004_limits")]

    operations = [migrations.RunSQL(PERIODS + RESERVE + SETTLE + EXPIRE + CONSTRAINT, UNDO)]
