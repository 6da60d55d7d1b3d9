"""Reserve and settle anew: one pass over a batch, whose rows are written together, and every record explains itself.

Both functions still lock the counters that they touch in one order, by the limit's id, before they read them.
Most of what a call costs is to set its statements up, and that by the size of their plans. So these are small, what
they read is kept in arrays, and the reckoning is done on those.
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
-- Takes the items in turn: each is admitted at all of its limits, or refused and costs nothing.
CREATE OR REPLACE FUNCTION reserve(items jsonb) RETURNS TABLE (ordinal int, refused_by bigint, limits jsonb)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    -- Of the items, by their numbers.
    ordinals int[];
    ids text[];
    keys text[];
    teams text[];
    tokens bigint[];
    micropoints bigint[];
    wanted bigint[];
    setting text;
    counter apikeys_counter;
    a_limit apikeys_limit;
    moment timestamptz := '-infinity';
    -- Of the limits, by their places among those met: whose each is, and how it stands after the items so far.
    met bigint[] := '{}';
    limit_keys text[];
    limit_teams text[];
    measures text[];
    maximums bigint[];
    since timestamptz[];
    spent bigint[];
    held bigint[];
    -- How long it would refuse: a spent budget longer than anything else, then by the end of its period, if it has one.
    is_spent boolean[];
    ends timestamptz[];
    -- What all items find alike, as the text of JSON, which is put together quicker than jsonb.
    facts text[];
    item record;
    -- Of the present item.
    number int := 0;
    places int[];
    own int[];
    place int;
    asked bigint;
    tried bigint[];
    refusing int;
    told text;
    reservation apikeys_reservation;
    reservations apikeys_reservation[] := '{}';
BEGIN
    SELECT array_agg(asked.ordinal), array_agg(asked.id), array_agg(asked.key_id), array_agg(asked.team_id),
        array_agg(asked.tokens), array_agg(asked.micropoints)
    INTO ordinals, ids, keys, teams, tokens, micropoints
    FROM jsonb_to_recordset(items) AS asked(
        ordinal int, id text, key_id text, team_id text, tokens bigint, micropoints bigint);
    wanted := limits_met(keys, teams);
    IF wanted = '{}' THEN
        RETURN;
    END IF;
    -- Nobody waits for the disk here. Should the database itself crash, what was reserved in the last second is
    -- forgotten, counter and reservation alike, of requests that have not been recorded yet: settling waits for it.
    setting := set_config('synchronous_commit', 'off', true);
    FOR counter IN SELECT * FROM apikeys_counter WHERE limit_id = ANY (wanted) ORDER BY limit_id FOR UPDATE LOOP
        met := met || counter.limit_id;
        since := since || counter.period_start;
        spent := spent || counter.used;
        held := held || counter.reserved;
        moment := greatest(moment, counter.period_start);
    END LOOP;
    -- Told after the locks are held, and never before what a counter has seen: its windows do not run backwards, and
    -- what a clock admits that has stepped back is charged to the window that let it in.
    moment := greatest(moment, clock_timestamp());
    -- Read only now: while a counter was waited for, its limit may have been changed.
    FOR a_limit IN SELECT * FROM apikeys_limit WHERE id = ANY (met) ORDER BY id LOOP
        place := array_position(met, a_limit.id);
        IF since[place] < limit_period_start(a_limit.period, a_limit.time_zone, moment) THEN
            since[place] := limit_period_start(a_limit.period, a_limit.time_zone, moment);
            spent[place] := 0;
            held[place] := 0;
            UPDATE apikeys_counter SET period_start = since[place], used = 0, reserved = 0, alerted = 0
            WHERE limit_id = a_limit.id;
        END IF;
        limit_keys[place] := a_limit.key_id;
        limit_teams[place] := CASE WHEN a_limit.key_id IS NULL THEN a_limit.team_id END;
        measures[place] := a_limit.measure;
        maximums[place] := a_limit.amount;
        is_spent[place] := spent[place] >= a_limit.amount AND a_limit.period NOT IN ('now', 'minute');
        ends[place] := limit_period_end(a_limit.period, a_limit.time_zone, since[place]);
        facts[place] := format(
            '"id": %s, "is_team": %s, "measure": "%s", "period": "%s", "time_zone": %s, "since": %s, "amount": %s,'
            ' "used": %s, "resets_in": %s',
            a_limit.id, (a_limit.key_id IS NULL)::text, a_limit.measure, a_limit.period, to_json(a_limit.time_zone),
            to_json(since[place]), a_limit.amount, spent[place],
            coalesce(extract(epoch FROM ends[place] - moment)::text, 'null'));
    END LOOP;
    FOR item IN
        SELECT asked AS reservation, asked.id = ANY (ARRAY(
            SELECT known.id FROM apikeys_reservation AS known WHERE known.id = ANY (ids))) AS is_known
        FROM jsonb_populate_recordset(NULL::apikeys_reservation, items) AS asked
    LOOP
        number := number + 1;
        ordinal := ordinals[number];
        refused_by := NULL;
        limits := NULL;
        IF item.is_known THEN
            -- The connection broke before the answer came: it was admitted.
            RETURN NEXT;
            CONTINUE;
        END IF;
        reservation := item.reservation;
        tried := held;
        refusing := NULL;
        told := NULL;
        places := array_positions(limit_teams, reservation.team_id::text);
        own := array_positions(limit_keys, reservation.key_id::text);
        -- A team's limits are mostly older than those of its keys, and to sort takes a statement.
        IF places[cardinality(places)] > own[1] THEN
            places := ARRAY(SELECT unnest(places || own) ORDER BY 1);
        ELSE
            places := places || own;
        END IF;
        FOREACH place IN ARRAY places LOOP
            asked := CASE measures[place] WHEN 'tokens' THEN tokens[number] WHEN 'micropoints' THEN micropoints[number]
                ELSE 1 END;
            tried[place] := held[place] + asked;
            -- Of several that refuse, the one that holds longest is named.
            IF spent[place] + tried[place] > maximums[place] AND (refusing IS NULL
                OR (is_spent[place], coalesce(ends[place], 'infinity'))
                    > (is_spent[refusing], coalesce(ends[refusing], 'infinity'))) THEN
                refusing := place;
            END IF;
            told := concat_ws(', ', told,
                format('{%s, "reserved": %s, "asked": %s}', facts[place], held[place], asked));
            reservation.limit_ids := reservation.limit_ids || met[place];
            reservation.amounts := reservation.amounts || asked;
            reservation.period_starts := reservation.period_starts || since[place];
        END LOOP;
        -- It may meet none, where others of the batch do.
        CONTINUE WHEN told IS NULL;
        limits := ('[' || told || ']')::jsonb;
        refused_by := met[refusing];
        IF refusing IS NULL THEN
            held := tried;
            reservation.found := limits;
            reservation.admitted_at := moment;
            reservations := reservations || reservation;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF reservations <> '{}' THEN
        INSERT INTO apikeys_reservation (id, server_id, team_id, key_id, app_id, endpoint, model, prompt_tokens,
            prompt_micropoints, prompt_price, completion_price, found, limit_ids, amounts, period_starts, admitted_at)
        SELECT id, server_id, team_id, key_id, app_id, endpoint, model, prompt_tokens, prompt_micropoints,
            coalesce(prompt_price, 0), coalesce(completion_price, 0), found, limit_ids, amounts, period_starts,
            admitted_at
        FROM unnest(reservations);
        UPDATE apikeys_counter SET reserved = held[array_position(met, limit_id)]
        WHERE limit_id = ANY (met) AND reserved <> held[array_position(met, limit_id)];
    END IF;
END $$;
"""

SETTLE = """
-- Writes usage to the ledger, charges it, and gives back what was reserved for it. Once for each id, however often
-- it is called; only a row `lost` is replaced, by what really came of the request. Returns the ids that were new.
CREATE OR REPLACE FUNCTION settle(items jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    -- A batch is made of requests that ended, or of those that are written off, never of both.
    is_expiry boolean := items -> 0 ->> 'ending' = 'lost';
    -- Of the requests, by their places in the batch.
    ids text[];
    keys text[];
    teams text[];
    tokens bigint[];
    costs bigint[];
    reservations apikeys_reservation[];
    moments timestamptz[];
    -- Each limit that it found, then those made meanwhile; and, as the text of JSON, what came of it at them.
    told jsonb[];
    charges text[];
    -- By the request's id: what was written off of it.
    lost jsonb := '{}';
    fresh text[];
    reservation apikeys_reservation;
    counter apikeys_counter;
    a_limit apikeys_limit;
    -- Of the limits, by their places among those met: how each stands.
    met bigint[];
    since timestamptz[];
    spent bigint[];
    held bigint[];
    -- Of the present limit: the places of the requests that it counts, and its own.
    places int[];
    place int;
    this int;
    latest timestamptz;
    part int;
    charge bigint;
    written_off bigint;
    is_alarming boolean := false;
    new_id text;
BEGIN
    SELECT array_agg(item.id), array_agg(item.key_id), array_agg(item.team_id),
        array_agg(item.prompt_tokens + item.completion_tokens), array_agg(item.cost_micropoints)
    INTO ids, keys, teams, tokens, costs
    FROM jsonb_to_recordset(items) AS item(
        id text, key_id text, team_id text, prompt_tokens bigint, completion_tokens bigint, cost_micropoints bigint);

    -- Reservations first: whoever removes one settles it.
    FOR reservation IN DELETE FROM apikeys_reservation AS gone WHERE gone.id = ANY (ids) RETURNING gone.* LOOP
        reservations[array_position(ids, reservation.id::text)] := reservation;
    END LOOP;

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
    FOR place IN 1 .. cardinality(ids) LOOP
        moments[place] := coalesce(reservations[place].admitted_at, (lost -> ids[place] ->> 'moment')::timestamptz,
            statement_timestamp());
        told[place] := coalesce(reservations[place].found, nullif(lost -> ids[place] -> 'limits', 'null'), '[]');
    END LOOP;

    -- Most requests meet no limit, and skip this.
    met := limits_met(keys, teams);
    IF met <> '{}' THEN
        FOR counter IN SELECT * FROM apikeys_counter WHERE limit_id = ANY (met) ORDER BY limit_id FOR UPDATE LOOP
            this := array_position(met, counter.limit_id);
            since[this] := counter.period_start;
            spent[this] := counter.used;
            held[this] := counter.reserved;
        END LOOP;
        FOR a_limit IN SELECT * FROM apikeys_limit WHERE id = ANY (met) ORDER BY id LOOP
            this := array_position(met, a_limit.id);
            places := CASE WHEN a_limit.key_id IS NULL THEN array_positions(teams, a_limit.team_id::text)
                ELSE array_positions(keys, a_limit.key_id::text) END;
            latest := since[this];
            FOREACH place IN ARRAY places LOOP
                latest := greatest(latest, moments[place]);
            END LOOP;
            -- A charge or a reservation of an earlier period than the counter's has gone with that period.
            IF since[this] < limit_period_start(a_limit.period, a_limit.time_zone, latest) THEN
                since[this] := limit_period_start(a_limit.period, a_limit.time_zone, latest);
                spent[this] := 0;
                held[this] := 0;
                UPDATE apikeys_counter SET period_start = since[this], alerted = 0 WHERE limit_id = a_limit.id;
            END IF;
            -- What each request left, as if the batch had come one by one.
            FOREACH place IN ARRAY places LOOP
                charge := 0;
                IF ids[place] = ANY (fresh) THEN
                    charge := CASE a_limit.measure WHEN 'requests' THEN 1 WHEN 'tokens' THEN tokens[place]
                        WHEN 'micropoints' THEN costs[place] ELSE 0 END;
                END IF;
                written_off := 0;
                IF lost ? ids[place] THEN
                    written_off := CASE a_limit.measure WHEN 'requests' THEN 1
                        WHEN 'tokens' THEN (lost -> ids[place] ->> 'tokens')::bigint
                        WHEN 'micropoints' THEN (lost -> ids[place] ->> 'cost')::bigint ELSE 0 END;
                END IF;
                IF moments[place] >= since[this] THEN
                    spent[this] := spent[this] + charge - written_off;
                END IF;
                part := array_position(reservations[place].limit_ids, a_limit.id);
                IF reservations[place].period_starts[part] = since[this] THEN
                    held[this] := greatest(0, held[this] - reservations[place].amounts[part]);
                END IF;
                charges[place] := concat_ws(', ', charges[place],
                    format('"%s": [%s, %s, %s]', a_limit.id, charge, spent[this], held[this]));
                -- One that it did not find when it was admitted.
                IF NOT told[place] @> format('[{"id": %s}]', a_limit.id)::jsonb THEN
                    told[place] := told[place] || jsonb_build_object(
                        'id', a_limit.id, 'is_team', a_limit.key_id IS NULL, 'measure', a_limit.measure,
                        'period', a_limit.period, 'time_zone', a_limit.time_zone, 'since', since[this],
                        'amount', a_limit.amount);
                END IF;
            END LOOP;
            IF a_limit.period NOT IN ('now', 'minute')
                AND (spent[this] >= a_limit.amount - spent[this] OR spent[this] >= a_limit.soft_amount) THEN
                is_alarming := true;
            END IF;
        END LOOP;
        UPDATE apikeys_counter SET
            used = spent[array_position(met, limit_id)], reserved = held[array_position(met, limit_id)]
        WHERE limit_id = ANY (met);
        IF is_alarming THEN
            PERFORM raise_budget_alerts(met);
        END IF;
    END IF;

    IF NOT is_expiry THEN
        INSERT INTO apikeys_keyactivity (key_id, last_used_at, last_used_from)
        SELECT DISTINCT ON (item.key_id) item.key_id, statement_timestamp(), item.client_address
        FROM jsonb_to_recordset(items) AS item(key_id text, client_address inet)
        ORDER BY item.key_id
        ON CONFLICT (key_id) DO UPDATE
        SET last_used_at = greatest(excluded.last_used_at, apikeys_keyactivity.last_used_at),
            last_used_from = excluded.last_used_from;
    END IF;
    INSERT INTO apikeys_usagerecord (
        id, team_id, key_id, endpoint, status, duration_ms, app_id, model, prompt_tokens, completion_tokens,
        token_source, cost_micropoints, prompt_price, completion_price, ending, time_to_first_byte_ms,
        client_address, limits, charges, created_at)
    SELECT item.id, item.team_id, item.key_id, item.endpoint, item.status, item.duration_ms, item.app_id, item.model,
        item.prompt_tokens, item.completion_tokens, item.token_source, item.cost_micropoints,
        coalesce(item.prompt_price, 0), coalesce(item.completion_price, 0), item.ending, item.time_to_first_byte_ms,
        item.client_address, nullif(told[item.place], '[]'), ('{' || charges[item.place] || '}')::jsonb,
        moments[item.place]
    FROM ROWS FROM (jsonb_to_recordset(items) AS (
        id text, team_id text, key_id text, endpoint text, status smallint, duration_ms int, app_id text,
        model text, prompt_tokens int, completion_tokens int, token_source text, cost_micropoints bigint,
        prompt_price bigint, completion_price bigint, ending text, time_to_first_byte_ms int, client_address inet)
    ) WITH ORDINALITY AS item(
        id, team_id, key_id, endpoint, status, duration_ms, app_id, model, prompt_tokens, completion_tokens,
        token_source, cost_micropoints, prompt_price, completion_price, ending, time_to_first_byte_ms, client_address,
        place)
    WHERE item.id = ANY (fresh);

    FOREACH new_id IN ARRAY fresh LOOP
        RETURN NEXT new_id;
    END LOOP;
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
DROP SEQUENCE apikeys_call_number;
DROP FUNCTION limits_met(text[], text[]);
"""


class Migration(migrations.Migration):
    dependencies = [("apikeys", "0007_explanations")]

    operations = [migrations.RunSQL(MET + RESERVE + SETTLE + RELEASE + ALERTS + EXPIRE, UNDO)]
