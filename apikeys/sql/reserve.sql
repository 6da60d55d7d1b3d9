-- Takes the items in turn: each is admitted at all of its limits, or refused and costs nothing.
CREATE OR REPLACE FUNCTION apikeys_reserve(items jsonb) RETURNS TABLE (ordinal int, refused_by bigint, limits jsonb)
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
    requested bigint;
    tried bigint[];
    refusing int;
    told text;
    reservation apikeys_reservation;
    reservations apikeys_reservation[] := '{}';
BEGIN
    SELECT array_agg(requested.ordinal), array_agg(requested.id), array_agg(requested.key_id), array_agg(requested.team_id),
        array_agg(requested.tokens), array_agg(requested.micropoints)
    INTO ordinals, ids, keys, teams, tokens, micropoints
    FROM jsonb_to_recordset(items) AS requested(
        ordinal int, id text, key_id text, team_id text, tokens bigint, micropoints bigint);
    wanted := apikeys_limits_met(keys, teams);
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
        IF since[place] < apikeys_period_start(a_limit.period, a_limit.time_zone, moment) THEN
            since[place] := apikeys_period_start(a_limit.period, a_limit.time_zone, moment);
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
        ends[place] := apikeys_period_end(a_limit.period, a_limit.time_zone, since[place]);
        facts[place] := format(
            '"id": %s, "is_team": %s, "measure": "%s", "period": "%s", "time_zone": %s, "since": %s, "amount": %s,'
            ' "used": %s, "resets_in": %s',
            a_limit.id, (a_limit.key_id IS NULL)::text, a_limit.measure, a_limit.period, to_json(a_limit.time_zone),
            to_json(since[place]), a_limit.amount, spent[place],
            coalesce(extract(epoch FROM ends[place] - moment)::text, 'null'));
    END LOOP;
    FOR item IN
        SELECT requested AS reservation, requested.id = ANY (ARRAY(
            SELECT known.id FROM apikeys_reservation AS known WHERE known.id = ANY (ids))) AS is_known
        FROM jsonb_populate_recordset(NULL::apikeys_reservation, items) AS requested
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
            requested := CASE measures[place] WHEN 'tokens' THEN tokens[number] WHEN 'micropoints' THEN micropoints[number]
                ELSE 1 END;
            tried[place] := held[place] + requested;
            -- Of several that refuse, the one that holds longest is named.
            IF spent[place] + tried[place] > maximums[place] AND (refusing IS NULL
                OR (is_spent[place], coalesce(ends[place], 'infinity'))
                    > (is_spent[refusing], coalesce(ends[refusing], 'infinity'))) THEN
                refusing := place;
            END IF;
            told := concat_ws(', ', told,
                format('{%s, "reserved": %s, "requested": %s}', facts[place], held[place], requested));
            reservation.limit_ids := reservation.limit_ids || met[place];
            reservation.amounts := reservation.amounts || requested;
            reservation.period_starts := reservation.period_starts || since[place];
        END LOOP;
        -- It may meet none, where others of the batch do.
        CONTINUE WHEN told IS NULL;
        limits := ('[' || told || ']')::jsonb;
        refused_by := met[refusing];
        IF refusing IS NULL THEN
            held := tried;
            reservation.limits_seen := limits;
            reservation.admitted_at := moment;
            reservations := reservations || reservation;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF reservations <> '{}' THEN
        INSERT INTO apikeys_reservation (id, server_id, team_id, key_id, app_id, endpoint, model, prompt_tokens,
            prompt_micropoints, prompt_price, completion_price, limits_seen, limit_ids, amounts, period_starts, admitted_at)
        SELECT id, server_id, team_id, key_id, app_id, endpoint, model, prompt_tokens, prompt_micropoints,
            coalesce(prompt_price, 0), coalesce(completion_price, 0), limits_seen, limit_ids, amounts, period_starts,
            admitted_at
        FROM unnest(reservations);
        UPDATE apikeys_counter SET reserved = held[array_position(met, limit_id)]
        WHERE limit_id = ANY (met) AND reserved <> held[array_position(met, limit_id)];
    END IF;
END $$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_reserve(jsonb);
