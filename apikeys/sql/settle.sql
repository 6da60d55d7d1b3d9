-- Writes usage to the ledger, charges it, and gives back what was reserved for it. Once for each id, however often
-- it is called; only a row `lost` is replaced, by what really came of the request. Returns the ids that were new.
CREATE OR REPLACE FUNCTION apikeys_settle(items jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    -- A batch is made of requests that ended, or of those that are written off, never of both.
    is_expiry boolean := items -> 0 ->> 'outcome' = 'lost';
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
            WHERE usage.id = ANY (ids) AND usage.outcome = 'lost' AND NOT is_expiry
            RETURNING usage.*
        )
        SELECT coalesce(jsonb_object_agg(id, jsonb_build_object(
            'tokens', prompt_tokens::bigint + completion_tokens, 'cost', cost_micropoints, 'limits', limits,
            'moment', created_at)), '{}')
        INTO lost FROM taken_back;
        fresh := ARRAY(
            SELECT DISTINCT requested.id FROM unnest(ids) AS requested(id)
            WHERE NOT EXISTS (SELECT 1 FROM apikeys_usagerecord AS usage WHERE usage.id = requested.id));
    ELSE
        fresh := ids;
    END IF;
    FOR place IN 1 .. cardinality(ids) LOOP
        moments[place] := coalesce(reservations[place].admitted_at, (lost -> ids[place] ->> 'moment')::timestamptz,
            statement_timestamp());
        told[place] := coalesce(reservations[place].limits_seen, nullif(lost -> ids[place] -> 'limits', 'null'), '[]');
    END LOOP;

    -- Most requests meet no limit, and skip this.
    met := apikeys_limits_met(keys, teams);
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
            IF since[this] < apikeys_period_start(a_limit.period, a_limit.time_zone, latest) THEN
                since[this] := apikeys_period_start(a_limit.period, a_limit.time_zone, latest);
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
            PERFORM apikeys_raise_budget_alerts(met);
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
        token_source, cost_micropoints, prompt_price, completion_price, outcome, time_to_first_byte_ms,
        client_address, limits, charges, created_at)
    SELECT item.id, item.team_id, item.key_id, item.endpoint, item.status, item.duration_ms, item.app_id, item.model,
        item.prompt_tokens, item.completion_tokens, item.token_source, item.cost_micropoints,
        coalesce(item.prompt_price, 0), coalesce(item.completion_price, 0), item.outcome, item.time_to_first_byte_ms,
        item.client_address, nullif(told[item.place], '[]'), ('{' || charges[item.place] || '}')::jsonb,
        moments[item.place]
    FROM ROWS FROM (jsonb_to_recordset(items) AS (
        id text, team_id text, key_id text, endpoint text, status smallint, duration_ms int, app_id text,
        model text, prompt_tokens int, completion_tokens int, token_source text, cost_micropoints bigint,
        prompt_price bigint, completion_price bigint, outcome text, time_to_first_byte_ms int, client_address inet)
    ) WITH ORDINALITY AS item(
        id, team_id, key_id, endpoint, status, duration_ms, app_id, model, prompt_tokens, completion_tokens,
        token_source, cost_micropoints, prompt_price, completion_price, outcome, time_to_first_byte_ms, client_address,
        place)
    WHERE item.id = ANY (fresh);

    FOREACH new_id IN ARRAY fresh LOOP
        RETURN NEXT new_id;
    END LOOP;
END $$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_settle(jsonb);
