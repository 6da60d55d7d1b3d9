"""Reserve and settle anew: a batch that fits is let in by one statement, and every record explains itself.

Both functions still lock the counters that they touch in one order, by the limit's id, before they read them.
"""

from importlib import import_module

from django.db import migrations

earlier = import_module("apikeys.migrations.0005_accounting")

# The team's own limits by an index of their own, and not by reading those of all its keys.
MET = """
-- Not in SQL: a session plans such a function once.
CREATE FUNCTION limits_met(keys text[], teams text[]) RETURNS bigint[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN ARRAY(
        SELECT a_limit.id FROM apikeys_limit AS a_limit WHERE a_limit.key_id = ANY (keys)
        UNION ALL
        SELECT a_limit.id FROM apikeys_limit AS a_limit WHERE a_limit.key_id IS NULL AND a_limit.team_id = ANY (teams));
END $$;

-- What requests that are open at this moment have reserved. How they found their limits is not known any more.
UPDATE apikeys_reservation AS reservation SET found = (
    SELECT jsonb_agg(jsonb_build_object('id', a_limit.id, 'is_team', a_limit.key_id IS NULL,
        'measure', a_limit.measure, 'period', a_limit.period, 'time_zone', a_limit.time_zone,
        'since', held.period_start, 'amount', a_limit.amount, 'asked', held.amount))
    FROM unnest(reservation.limit_ids, reservation.amounts, reservation.period_starts)
        AS held(limit_id, amount, period_start)
    JOIN apikeys_limit AS a_limit ON a_limit.id = held.limit_id);

-- Numbers the calls that every server process answers.
CREATE SEQUENCE apikeys_call_number;

-- A budget that was changed may be used up once more, or is used up by the change.
CREATE FUNCTION alert_anew() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE apikeys_counter SET alerted = 0 WHERE limit_id = NEW.id;
    PERFORM raise_budget_alerts(ARRAY[NEW.id]);
    RETURN NULL;
END $$;
-- One that is made, or lowered, where so much is spent already. Named to come after start_counter and restart_counter.
CREATE TRIGGER then_alert AFTER INSERT ON apikeys_limit FOR EACH ROW EXECUTE FUNCTION alert_anew();
CREATE TRIGGER then_alert_anew AFTER UPDATE ON apikeys_limit FOR EACH ROW
    WHEN ((OLD.team_id, OLD.key_id, OLD.measure, OLD.period, OLD.time_zone, OLD.amount, OLD.soft_amount)
        IS DISTINCT FROM (NEW.team_id, NEW.key_id, NEW.measure, NEW.period, NEW.time_zone, NEW.amount, NEW.soft_amount))
    EXECUTE FUNCTION alert_anew();
"""

RESERVE = """
-- Writes what the admitted items reserve, by their ordinals, and says of every item what its limits were. Without
-- such a choice, all items are admitted if all fit in their turn; otherwise nothing is written and said.
CREATE FUNCTION reserve_chosen(items jsonb, met bigint[], moment timestamptz, admitted int[])
RETURNS TABLE (ordinal int, refused_by bigint, limits jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH item AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(items) AS asked(
            ordinal int, id text, server_id text, team_id text, key_id text, app_id text, endpoint text, model text,
            prompt_tokens bigint, tokens bigint, prompt_micropoints bigint, micropoints bigint, prompt_price bigint,
            completion_price bigint)
    ),
    needed AS (
        SELECT item.ordinal, a_limit.id AS limit_id, a_limit.key_id IS NULL AS is_team, a_limit.measure,
            a_limit.period, a_limit.time_zone, a_limit.amount AS maximum, counter.period_start, counter.used,
            counter.reserved, limit_period_end(a_limit.period, a_limit.time_zone, counter.period_start) AS ends_at,
            CASE a_limit.measure WHEN 'tokens' THEN item.tokens WHEN 'micropoints' THEN item.micropoints
                ELSE 1 END AS asked,
            admitted IS NULL OR item.ordinal = ANY (admitted) AS is_admitted
        FROM item
        CROSS JOIN LATERAL (
            SELECT * FROM apikeys_limit AS of_key WHERE of_key.key_id = item.key_id
            UNION ALL
            SELECT * FROM apikeys_limit AS of_team WHERE of_team.key_id IS NULL AND of_team.team_id = item.team_id
        ) AS a_limit
        JOIN apikeys_counter AS counter ON counter.limit_id = a_limit.id
        WHERE a_limit.id = ANY (met)
    ),
    turn AS MATERIALIZED (
        SELECT needed.*,
            -- What those before it reserve, and not it itself.
            (needed.reserved + coalesce(sum(needed.asked) FILTER (WHERE needed.is_admitted) OVER (
                PARTITION BY needed.limit_id ORDER BY needed.ordinal
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0))::bigint AS reserved_before
        FROM needed
    ),
    verdict AS MATERIALIZED (
        SELECT turn.ordinal, bool_and(turn.is_admitted) AS is_admitted,
            array_agg(turn.limit_id ORDER BY turn.limit_id) AS limit_ids,
            array_agg(turn.asked ORDER BY turn.limit_id) AS amounts,
            array_agg(turn.period_start ORDER BY turn.limit_id) AS period_starts,
            -- Of several that refuse, the one that holds longest is named.
            (array_agg(turn.limit_id ORDER BY
                turn.used >= turn.maximum AND turn.period NOT IN ('now', 'minute') DESC,
                turn.ends_at DESC NULLS FIRST)
                FILTER (WHERE turn.used + turn.reserved_before + turn.asked > turn.maximum))[1] AS refused_by,
            jsonb_agg(jsonb_build_object(
                'id', turn.limit_id, 'is_team', turn.is_team, 'measure', turn.measure, 'period', turn.period,
                'time_zone', turn.time_zone, 'since', turn.period_start, 'amount', turn.maximum, 'used', turn.used,
                'reserved', turn.reserved_before, 'asked', turn.asked,
                'resets_in', extract(epoch FROM turn.ends_at - moment)) ORDER BY turn.limit_id) AS limits
        FROM turn GROUP BY turn.ordinal
    ),
    -- Chosen ones fit, by the choice.
    fit AS (
        SELECT admitted IS NOT NULL
            OR NOT EXISTS (SELECT 1 FROM verdict WHERE verdict.refused_by IS NOT NULL) AS is_so
    ),
    counted AS (
        UPDATE apikeys_counter AS counter SET reserved = counter.reserved + total.asked
        FROM (SELECT turn.limit_id, sum(turn.asked)::bigint AS asked FROM turn WHERE turn.is_admitted
            GROUP BY turn.limit_id) AS total
        WHERE counter.limit_id = total.limit_id AND (SELECT fit.is_so FROM fit)
    ),
    held AS (
        INSERT INTO apikeys_reservation (id, server_id, team_id, key_id, app_id, endpoint, model, prompt_tokens,
            prompt_micropoints, prompt_price, completion_price, found, limit_ids, amounts, period_starts, admitted_at)
        SELECT item.id, item.server_id, item.team_id, item.key_id, item.app_id, item.endpoint, item.model,
            item.prompt_tokens, item.prompt_micropoints, coalesce(item.prompt_price, 0),
            coalesce(item.completion_price, 0), verdict.limits, verdict.limit_ids, verdict.amounts,
            verdict.period_starts, moment
        FROM verdict JOIN item ON item.ordinal = verdict.ordinal
        WHERE verdict.is_admitted AND (SELECT fit.is_so FROM fit)
    )
    SELECT verdict.ordinal, verdict.refused_by, verdict.limits FROM verdict
    WHERE (SELECT fit.is_so FROM fit);
END $$;

-- The ordinals of those that fit, each at all of its limits, taken in turn: one that does not costs nothing.
CREATE FUNCTION choose_in_turn(items jsonb, met bigint[]) RETURNS int[] LANGUAGE plpgsql AS $$
DECLARE
    line record;
    admitted int[] := '{}';
    -- By the place of the limit among those met: the room that is left, with and without the present item.
    rooms bigint[] := '{}';
    tried bigint[];
    present int;
    fits boolean := false;
BEGIN
    FOR line IN
        SELECT item.ordinal, array_position(met, a_limit.id) AS place,
            a_limit.amount - counter.used - counter.reserved AS room,
            CASE a_limit.measure WHEN 'tokens' THEN item.tokens WHEN 'micropoints' THEN item.micropoints
                ELSE 1 END AS asked
        FROM jsonb_to_recordset(items) AS item(
            ordinal int, team_id text, key_id text, tokens bigint, micropoints bigint)
        CROSS JOIN LATERAL (
            SELECT * FROM apikeys_limit AS of_key WHERE of_key.key_id = item.key_id
            UNION ALL
            SELECT * FROM apikeys_limit AS of_team WHERE of_team.key_id IS NULL AND of_team.team_id = item.team_id
        ) AS a_limit
        JOIN apikeys_counter AS counter ON counter.limit_id = a_limit.id
        WHERE a_limit.id = ANY (met)
        ORDER BY item.ordinal
    LOOP
        IF line.ordinal IS DISTINCT FROM present THEN
            IF fits THEN
                admitted := admitted || present;
                rooms := tried;
            END IF;
            present := line.ordinal;
            fits := true;
            tried := rooms;
        END IF;
        tried[line.place] := coalesce(tried[line.place], line.room) - line.asked;
        fits := fits AND tried[line.place] >= 0;
    END LOOP;
    RETURN CASE WHEN fits THEN admitted || present ELSE admitted END;
END $$;

-- Takes the items in turn: each is admitted at all of its limits, or refused and costs nothing.
CREATE OR REPLACE FUNCTION reserve(items jsonb) RETURNS TABLE (ordinal int, refused_by bigint, limits jsonb)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    ids text[];
    keys text[];
    teams text[];
    met bigint[];
    moment timestamptz;
    known text[];
    fresh jsonb := items;
BEGIN
    SELECT array_agg(asked.id), array_agg(DISTINCT asked.key_id), array_agg(DISTINCT asked.team_id)
    INTO ids, keys, teams FROM jsonb_to_recordset(items) AS asked(id text, team_id text, key_id text);
    met := limits_met(keys, teams);
    IF met = '{}' THEN
        RETURN;
    END IF;
    -- Nobody waits for the disk here. Should the database itself crash, what was reserved in the last second is
    -- forgotten, counter and reservation alike, of requests that have not been recorded yet: settling waits for it.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM 1 FROM apikeys_counter AS counter WHERE counter.limit_id = ANY (met)
    ORDER BY counter.limit_id FOR UPDATE;
    -- Told after the locks are held, and never before what a counter has seen: its windows do not run backwards, and
    -- what a clock admits that has stepped back is charged to the window that let it in.
    moment := greatest(clock_timestamp(), (SELECT max(counter.period_start) FROM apikeys_counter AS counter
        WHERE counter.limit_id = ANY (met)));
    UPDATE apikeys_counter AS counter SET
        period_start = limit_period_start(a_limit.period, a_limit.time_zone, moment),
        used = 0, reserved = 0, alerted = 0
    FROM apikeys_limit AS a_limit
    WHERE counter.limit_id = ANY (met) AND a_limit.id = counter.limit_id
        AND counter.period_start < limit_period_start(a_limit.period, a_limit.time_zone, moment);
    known := ARRAY(SELECT reservation.id FROM apikeys_reservation AS reservation WHERE reservation.id = ANY (ids));
    IF known <> '{}' THEN
        -- The connection broke before the answer came: they were admitted.
        RETURN QUERY SELECT asked.ordinal, NULL::bigint, NULL::jsonb
        FROM jsonb_to_recordset(items) AS asked(ordinal int, id text) WHERE asked.id = ANY (known);
        fresh := (
            SELECT jsonb_agg(part.item) FROM jsonb_array_elements(items) AS part(item)
            WHERE NOT part.item ->> 'id' = ANY (known));
        IF fresh IS NULL THEN
            RETURN;
        END IF;
    END IF;
    -- Mostly all fit, which one statement finds out and writes.
    RETURN QUERY SELECT * FROM reserve_chosen(fresh, met, moment, NULL);
    IF NOT FOUND THEN
        RETURN QUERY SELECT * FROM reserve_chosen(fresh, met, moment, choose_in_turn(fresh, met));
    END IF;
END $$;
"""

SETTLE = """
-- Writes usage to the ledger, charges it, and gives back what was reserved for it. Once for each id, however often
-- it is called; only a row `lost` is replaced, by what really came of the request. Returns the ids that were new.
CREATE OR REPLACE FUNCTION settle(items jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    ids text[];
    fresh text[];
    keys text[];
    teams text[];
    met bigint[];
    -- A batch is made of requests that ended, or of those that are written off, never of both.
    is_expiry boolean := items -> 0 ->> 'ending' = 'lost';
    held apikeys_reservation[];
    -- By the request's id: what was written off of it, and what came of it at its limits.
    lost jsonb := '{}';
    reckoned jsonb := '{}';
    is_alarming boolean;
BEGIN
    SELECT array_agg(item.id), array_agg(item.key_id), array_agg(item.team_id) INTO ids, keys, teams
    FROM jsonb_to_recordset(items) AS item(id text, key_id text, team_id text);

    -- Reservations first: whoever removes one settles it.
    WITH gone AS (
        DELETE FROM apikeys_reservation AS reservation WHERE reservation.id = ANY (ids) RETURNING reservation
    )
    SELECT array_agg(gone.reservation) INTO held FROM gone;

    -- From here on no limit can be made whose sum of the ledger would miss what is written below: see start_counter.
    LOCK TABLE apikeys_usagerecord IN ROW EXCLUSIVE MODE;

    -- What is recorded already is not charged again, but what was written off is taken back. Should another call be
    -- recording the same at this moment, the insert below fails, everything here with it, and the next try sees it.
    IF EXISTS (SELECT 1 FROM apikeys_usagerecord AS usage WHERE usage.id = ANY (ids)) THEN
        WITH taken_back AS (
            DELETE FROM apikeys_usagerecord AS usage
            WHERE usage.id = ANY (ids) AND usage.ending = 'lost' AND NOT is_expiry
            RETURNING usage.*
        )
        SELECT coalesce(jsonb_object_agg(id, jsonb_build_object(
            'tokens', prompt_tokens::bigint + completion_tokens, 'cost', cost_micropoints, 'limits', limits,
            'moment', created_at)), '{}')
        INTO lost FROM taken_back;
        fresh := ARRAY(
            SELECT DISTINCT asked.id FROM unnest(ids) AS asked(id)
            WHERE NOT EXISTS (SELECT 1 FROM apikeys_usagerecord AS usage WHERE usage.id = asked.id));
    ELSE
        fresh := ids;
    END IF;

    -- Most requests meet no limit, and skip this.
    met := limits_met(keys, teams);
    IF met <> '{}' THEN
        PERFORM 1 FROM apikeys_counter AS counter WHERE counter.limit_id = ANY (met)
        ORDER BY counter.limit_id FOR UPDATE;

        WITH entry AS (
            SELECT request.id, request.ordinal, a_limit.id AS limit_id, a_limit.key_id IS NULL AS is_team,
                a_limit.measure, a_limit.period, a_limit.time_zone, a_limit.amount, a_limit.soft_amount,
                counter.period_start, counter.used, counter.reserved, request.moment, charged.charge,
                charged.charge - charged.written_off AS net,
                request.amounts[charged.place] AS asked, request.period_starts[charged.place] AS since,
                coalesce(request.found @> jsonb_build_array(jsonb_build_object('id', a_limit.id)), false) AS is_found,
                max(limit_period_start(a_limit.period, a_limit.time_zone, request.moment))
                    OVER (PARTITION BY a_limit.id) AS latest_start
            FROM (
                SELECT item.*, held.limit_ids, held.amounts, held.period_starts,
                    coalesce(held.found, lost -> item.id -> 'limits') AS found,
                    coalesce(held.admitted_at, (lost -> item.id ->> 'moment')::timestamptz, statement_timestamp())
                        AS moment
                FROM ROWS FROM (jsonb_to_recordset(items) AS (
                    id text, team_id text, key_id text, prompt_tokens bigint, completion_tokens bigint,
                    cost_micropoints bigint)
                ) WITH ORDINALITY AS item(
                    id, team_id, key_id, prompt_tokens, completion_tokens, cost_micropoints, ordinal)
                LEFT JOIN unnest(held) AS held ON held.id = item.id
            ) AS request
            CROSS JOIN LATERAL (
                SELECT * FROM apikeys_limit AS of_key WHERE of_key.key_id = request.key_id
                UNION ALL
                SELECT * FROM apikeys_limit AS of_team
                WHERE of_team.key_id IS NULL AND of_team.team_id = request.team_id
            ) AS a_limit
            JOIN apikeys_counter AS counter ON counter.limit_id = a_limit.id
            CROSS JOIN LATERAL (
                SELECT array_position(request.limit_ids, a_limit.id) AS place,
                    CASE WHEN NOT request.id = ANY (fresh) THEN 0 ELSE CASE a_limit.measure WHEN 'requests' THEN 1
                        WHEN 'tokens' THEN request.prompt_tokens + request.completion_tokens
                        WHEN 'micropoints' THEN request.cost_micropoints ELSE 0 END END AS charge,
                    CASE WHEN lost ? request.id THEN CASE a_limit.measure WHEN 'requests' THEN 1
                        WHEN 'tokens' THEN (lost -> request.id ->> 'tokens')::bigint
                        WHEN 'micropoints' THEN (lost -> request.id ->> 'cost')::bigint ELSE 0 END ELSE 0 END
                        AS written_off
            ) AS charged
            WHERE a_limit.id = ANY (met)
        ),
        effect AS (
            -- A charge or a reservation of an earlier period than the counter's has gone with that period.
            SELECT entry.*, target.start,
                CASE WHEN target.start = entry.period_start THEN entry.used ELSE 0 END AS used_before,
                CASE WHEN target.start = entry.period_start THEN entry.reserved ELSE 0 END AS reserved_before,
                CASE WHEN entry.moment >= target.start THEN entry.net ELSE 0 END AS counted,
                CASE WHEN entry.since = target.start THEN entry.asked ELSE 0 END AS returned
            FROM entry CROSS JOIN LATERAL (SELECT greatest(entry.period_start, entry.latest_start) AS start) AS target
        ),
        step AS MATERIALIZED (
            -- What each request left, as if the batch had come one by one.
            SELECT effect.*,
                effect.used_before + sum(effect.counted) OVER turn AS used_after,
                greatest(0, effect.reserved_before - sum(effect.returned) OVER turn) AS reserved_after
            FROM effect WINDOW turn AS (PARTITION BY effect.limit_id ORDER BY effect.ordinal)
        ),
        changed AS (
            UPDATE apikeys_counter AS counter SET
                period_start = latest.start, used = latest.used_after, reserved = latest.reserved_after,
                alerted = CASE WHEN latest.start = counter.period_start THEN counter.alerted ELSE 0 END
            FROM (
                SELECT DISTINCT ON (step.limit_id) step.limit_id, step.start, step.used_after, step.reserved_after
                FROM step ORDER BY step.limit_id, step.ordinal DESC
            ) AS latest
            WHERE counter.limit_id = latest.limit_id
        ),
        line AS (
            SELECT step.id, jsonb_build_object(
                'charges', jsonb_object_agg(step.limit_id,
                    jsonb_build_array(step.charge, step.used_after, step.reserved_after)),
                -- Those that it did not find when it was admitted.
                'met', coalesce(jsonb_agg(jsonb_build_object('id', step.limit_id, 'is_team', step.is_team,
                    'measure', step.measure, 'period', step.period, 'time_zone', step.time_zone,
                    'since', step.start, 'amount', step.amount) ORDER BY step.limit_id)
                    FILTER (WHERE NOT step.is_found), '[]')) AS lines,
                bool_or(step.period NOT IN ('now', 'minute') AND (
                    step.used_after * 2 >= step.amount OR step.used_after >= step.soft_amount)) AS is_alarming
            FROM step GROUP BY step.id
        )
        SELECT coalesce(jsonb_object_agg(line.id, line.lines), '{}'), coalesce(bool_or(line.is_alarming), false)
        INTO reckoned, is_alarming FROM line;

        IF is_alarming THEN
            PERFORM raise_budget_alerts(met);
        END IF;
    END IF;

    WITH activity AS (
        INSERT INTO apikeys_keyactivity (key_id, last_used_at, last_used_from)
        SELECT DISTINCT ON (item.key_id) item.key_id, statement_timestamp(), item.client_address
        FROM jsonb_to_recordset(items) AS item(key_id text, client_address inet)
        WHERE NOT is_expiry ORDER BY item.key_id
        ON CONFLICT (key_id) DO UPDATE
        SET last_used_at = greatest(excluded.last_used_at, apikeys_keyactivity.last_used_at),
            last_used_from = excluded.last_used_from
    )
    INSERT INTO apikeys_usagerecord (
        id, team_id, key_id, endpoint, status, duration_ms, app_id, model, prompt_tokens, completion_tokens,
        token_source, cost_micropoints, prompt_price, completion_price, ending, time_to_first_byte_ms,
        client_address, limits, charges, created_at)
    SELECT item.id, item.team_id, item.key_id, item.endpoint, item.status, item.duration_ms, item.app_id, item.model,
        item.prompt_tokens, item.completion_tokens, item.token_source, item.cost_micropoints,
        coalesce(item.prompt_price, 0), coalesce(item.completion_price, 0), item.ending, item.time_to_first_byte_ms,
        item.client_address,
        nullif(coalesce(held.found, lost -> item.id -> 'limits', '[]') || coalesce(reckoned -> item.id -> 'met', '[]'),
            '[]'),
        reckoned -> item.id -> 'charges',
        coalesce(held.admitted_at, (lost -> item.id ->> 'moment')::timestamptz, statement_timestamp())
    FROM jsonb_to_recordset(items) AS item(
        id text, team_id text, key_id text, endpoint text, status smallint, duration_ms int, app_id text,
        model text, prompt_tokens int, completion_tokens int, token_source text, cost_micropoints bigint,
        prompt_price bigint, completion_price bigint, ending text, time_to_first_byte_ms int, client_address inet)
    LEFT JOIN unnest(held) AS held ON held.id = item.id
    WHERE item.id = ANY (fresh);

    RETURN QUERY SELECT unnest(fresh);
END $$;
"""

RELEASE = """
-- Gives back what was reserved for requests that were refused after all, because nobody heard that they were let in.
CREATE FUNCTION release(ids text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    held apikeys_reservation[];
    met bigint[];
BEGIN
    WITH gone AS (
        DELETE FROM apikeys_reservation AS reservation WHERE reservation.id = ANY (ids) RETURNING reservation
    )
    SELECT array_agg(gone.reservation) INTO held FROM gone;
    met := ARRAY(SELECT unnest(reservation.limit_ids) FROM unnest(held) AS reservation);
    PERFORM 1 FROM apikeys_counter AS counter WHERE counter.limit_id = ANY (met)
    ORDER BY counter.limit_id FOR UPDATE;
    UPDATE apikeys_counter AS counter SET reserved = greatest(0, counter.reserved - part.amount)
    FROM (
        SELECT part.limit_id, part.period_start, sum(part.amount)::bigint AS amount
        FROM unnest(held) AS reservation,
            LATERAL unnest(reservation.limit_ids, reservation.amounts, reservation.period_starts)
                AS part(limit_id, amount, period_start)
        GROUP BY part.limit_id, part.period_start
    ) AS part
    WHERE counter.limit_id = part.limit_id AND counter.period_start = part.period_start;
END $$;
"""

ALERTS = """
-- The highest threshold that a budget has reached, and its soft amount: each once for a period and an amount.
-- A counter remembers what was raised for it, so that nothing is looked for twice. The caller holds their locks.
CREATE FUNCTION raise_budget_alerts(met bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH reached AS (
        SELECT counter.*, a_limit.team_id, a_limit.key_id, a_limit.measure, a_limit.period, a_limit.time_zone,
            a_limit.amount, a_limit.soft_amount, threshold.percent, threshold.bit
        FROM apikeys_counter AS counter JOIN apikeys_limit AS a_limit ON a_limit.id = counter.limit_id
        CROSS JOIN LATERAL (
            SELECT * FROM (
                SELECT * FROM (VALUES (100, 4), (80, 2), (50, 1)) AS fixed(percent, bit)
                WHERE counter.used::numeric * 100 >= a_limit.amount::numeric * percent AND a_limit.amount > 0
                ORDER BY percent DESC LIMIT 1
            ) AS highest
            UNION ALL
            SELECT NULL, 8 WHERE counter.used >= a_limit.soft_amount
        ) AS threshold
        WHERE counter.limit_id = ANY (met) AND a_limit.period NOT IN ('now', 'minute')
            AND counter.alerted & threshold.bit = 0
    ),
    remembered AS (
        UPDATE apikeys_counter AS counter SET alerted = counter.alerted | raised.bits
        FROM (SELECT limit_id, bit_or(bit) AS bits FROM reached GROUP BY limit_id) AS raised
        WHERE counter.limit_id = raised.limit_id
    )
    INSERT INTO apikeys_alert (team_id, key_id, kind, occasion, facts)
    SELECT team_id, key_id, 'budget',
        format('budget:%s:%s:%s', limit_id, extract(epoch FROM period_start)::bigint,
            coalesce(percent || ':' || amount, 'soft:' || soft_amount)),
        jsonb_strip_nulls(jsonb_build_object(
            'limit_id', limit_id, 'measure', measure, 'period', period, 'time_zone', time_zone,
            'period_start', period_start, 'amount', amount, 'used', used, 'percent', percent,
            'soft_amount', CASE WHEN percent IS NULL THEN soft_amount END))
    FROM reached
    ON CONFLICT (occasion) DO NOTHING;
END $$;
"""

EXPIRE = """
-- Settles what processes left behind whose heartbeat is gone: the prompt's bound is charged, the rest given back.
-- What is still reserved after twelve hours, longer than any request runs, was forgotten by a living process.
CREATE OR REPLACE FUNCTION expire_reservations(silence interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    items jsonb;
BEGIN
    SELECT jsonb_agg(jsonb_build_object(
        'id', left_behind.id, 'team_id', left_behind.team_id, 'key_id', left_behind.key_id,
        'app_id', left_behind.app_id, 'endpoint', left_behind.endpoint, 'model', left_behind.model,
        'prompt_tokens', left_behind.prompt_tokens, 'completion_tokens', 0, 'token_source', 'bound',
        'cost_micropoints', left_behind.prompt_micropoints, 'prompt_price', left_behind.prompt_price,
        'completion_price', left_behind.completion_price, 'status', 0, 'ending', 'lost',
        'duration_ms', least(2147483647, extract(epoch FROM clock_timestamp() - left_behind.admitted_at) * 1000)::int))
    INTO items
    FROM (
        SELECT reservation.* FROM apikeys_reservation AS reservation
        WHERE reservation.admitted_at < clock_timestamp() - silence AND (
            reservation.admitted_at < clock_timestamp() - interval '12 hours' OR NOT EXISTS (
                SELECT 1 FROM apikeys_serverprocess AS server
                WHERE server.id = reservation.server_id AND server.heartbeat_at > clock_timestamp() - silence))
        ORDER BY reservation.id LIMIT 500 FOR UPDATE SKIP LOCKED
    ) AS left_behind;
    IF items IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM settle(items);
    RETURN jsonb_array_length(items);
END $$;
"""

BACK = (earlier.RESERVE + earlier.SETTLE + earlier.EXPIRE).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
UNDO = f"""
{BACK}
DROP FUNCTION release(text[]);
DROP FUNCTION raise_budget_alerts(bigint[]);
DROP TRIGGER then_alert_anew ON apikeys_limit;
DROP TRIGGER then_alert ON apikeys_limit;
DROP FUNCTION alert_anew();
DROP FUNCTION choose_in_turn(jsonb, bigint[]);
DROP FUNCTION reserve_chosen(jsonb, bigint[], timestamptz, int[]);
DROP SEQUENCE apikeys_call_number;
DROP FUNCTION limits_met(text[], text[]);
"""


class Migration(migrations.Migration):
    dependencies = [("apikeys", "0007_explanations")]

    operations = [migrations.RunSQL(MET + RESERVE + SETTLE + RELEASE + ALERTS + EXPIRE, UNDO)]
