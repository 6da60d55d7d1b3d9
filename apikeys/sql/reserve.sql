-- Returns the moment of a batch. The clock is read after the counters are locked, and no counter sees a moment before
-- its own period: periods do not run backwards, and what a clock admits that has stepped back is charged to the period
-- that let it in.
CREATE OR REPLACE FUNCTION apikeys_moment_of(counters apikeys_counter[]) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    counter apikeys_counter;
    moment timestamptz := clock_timestamp();
BEGIN
    FOREACH counter IN ARRAY counters LOOP
        moment := greatest(moment, counter.period_start);
    END LOOP;
    RETURN moment;
END $$;

-- Describes a limit as every request of a batch finds it, as the text of JSON without braces. Each request adds to it
-- what it finds for itself; text is put together quicker than jsonb.
CREATE OR REPLACE FUNCTION apikeys_describe_limit(a_limit apikeys_limit, counter apikeys_counter, moment timestamptz)
RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN format(
        '"id": %s, "is_team": %s, "measure": "%s", "period": "%s", "time_zone": %s, "since": %s, "amount": %s,'
        ' "used": %s, "resets_in": %s',
        a_limit.id, (a_limit.key_id IS NULL)::text, a_limit.measure, a_limit.period, to_json(a_limit.time_zone),
        to_json(counter.period_start), a_limit.amount, counter.used,
        coalesce(extract(epoch FROM
            apikeys_period_end(a_limit.period, a_limit.time_zone, counter.period_start) - moment)::text, 'null'));
END $$;

-- Returns the places of the limits that a request meets, in their order: those of its team and those of its key.
CREATE OR REPLACE FUNCTION apikeys_places_met(limit_keys text[], limit_teams text[], key_id text, team_id text)
RETURNS int[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    team_places int[] := array_positions(limit_teams, team_id);
    key_places int[] := array_positions(limit_keys, key_id);
BEGIN
    -- A team's limits are mostly older than those of its keys, and to sort takes a statement.
    IF team_places[cardinality(team_places)] > key_places[1] THEN
        RETURN ARRAY(SELECT unnest(team_places || key_places) ORDER BY 1);
    END IF;
    RETURN team_places || key_places;
END $$;

-- Weighs a request at the limits in these places. Its reservation gets each limit as the request found it and the
-- amount that it asks for there, and loses the moment of its admission if one of the limits has no room.
CREATE OR REPLACE FUNCTION apikeys_weigh(
    reservation apikeys_reservation, tokens bigint, micropoints bigint, places int[],
    counters apikeys_counter[], limit_rows apikeys_limit[], descriptions text[]
) RETURNS apikeys_reservation LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    place int;
    requested bigint;
    limit_states text;
    limit_ids bigint[];
    amounts bigint[];
    period_starts timestamptz[];
BEGIN
    FOREACH place IN ARRAY places LOOP
        requested := apikeys_charge(limit_rows[place].measure, tokens, micropoints, 1);
        IF counters[place].used + counters[place].reserved + requested > limit_rows[place].amount THEN
            reservation.admitted_at := NULL;
        END IF;
        limit_states := concat_ws(', ', limit_states, format(
            '{%s, "reserved": %s, "requested": %s}', descriptions[place], counters[place].reserved, requested));
        limit_ids := limit_ids || counters[place].limit_id;
        amounts := amounts || requested;
        period_starts := period_starts || counters[place].period_start;
    END LOOP;
    reservation.limits_seen := ('[' || limit_states || ']')::jsonb;
    reservation.limit_ids := limit_ids;
    reservation.amounts := amounts;
    reservation.period_starts := period_starts;
    RETURN reservation;
END $$;

-- Returns whether a limit will refuse longer than another: a budget that is spent already refuses longer than any other
-- limit, then one whose period ends later or never.
CREATE OR REPLACE FUNCTION apikeys_refuses_longer(
    a_limit apikeys_limit, counter apikeys_counter, other_limit apikeys_limit, other_counter apikeys_counter
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        counter.used >= a_limit.amount AND a_limit.period NOT IN ('now', 'minute'),
        coalesce(apikeys_period_end(a_limit.period, a_limit.time_zone, counter.period_start), 'infinity')
    ) > (
        other_counter.used >= other_limit.amount AND other_limit.period NOT IN ('now', 'minute'),
        coalesce(apikeys_period_end(other_limit.period, other_limit.time_zone, other_counter.period_start), 'infinity')
    );
END $$;

-- Returns the limit that refuses a request: of several that have no room for it, the one that will refuse longest.
CREATE OR REPLACE FUNCTION apikeys_refusing_limit(
    places int[], amounts bigint[], counters apikeys_counter[], limit_rows apikeys_limit[]
) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    place int;
    refusing int;
BEGIN
    FOR number IN 1 .. cardinality(places) LOOP
        place := places[number];
        CONTINUE WHEN counters[place].used + counters[place].reserved + amounts[number] <= limit_rows[place].amount;
        IF refusing IS NULL OR apikeys_refuses_longer(
            limit_rows[place], counters[place], limit_rows[refusing], counters[refusing]) THEN
            refusing := place;
        END IF;
    END LOOP;
    RETURN limit_rows[refusing].id;
END $$;

-- Writes the reservations of a batch and the counters that they changed.
CREATE OR REPLACE FUNCTION apikeys_save_reservations(
    reservations apikeys_reservation[], limit_ids bigint[], counters apikeys_counter[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO apikeys_reservation (id, server_id, team_id, key_id, app_id, endpoint, model, prompt_tokens,
        prompt_micropoints, prompt_price, completion_price, limits_seen, limit_ids, amounts, period_starts, admitted_at)
    SELECT made.id, made.server_id, made.team_id, made.key_id, made.app_id, made.endpoint, made.model,
        made.prompt_tokens, made.prompt_micropoints, coalesce(made.prompt_price, 0),
        coalesce(made.completion_price, 0), made.limits_seen, made.limit_ids, made.amounts, made.period_starts,
        made.admitted_at
    FROM unnest(reservations) AS made;
    UPDATE apikeys_counter SET reserved = (counters[array_position(limit_ids, limit_id)]).reserved
    WHERE limit_id = ANY (limit_ids) AND reserved <> (counters[array_position(limit_ids, limit_id)]).reserved;
END $$;

-- Takes the items in turn: each is admitted at all of its limits, or refused and costs nothing. Returns a row for each
-- item that meets a limit.
CREATE OR REPLACE FUNCTION apikeys_reserve(items jsonb) RETURNS TABLE (ordinal int, refused_by bigint, limits jsonb)
LANGUAGE plpgsql AS $$
DECLARE
    -- These are in the order of the items.
    ids text[];
    keys text[];
    teams text[];
    -- These are in the order of the ids of the limits that the batch meets.
    limit_ids bigint[];
    counters apikeys_counter[];
    limit_rows apikeys_limit[];
    limit_keys text[] := '{}';
    limit_teams text[] := '{}';
    descriptions text[];
    moment timestamptz;
    setting text;
    request record;
    places int[];
    reservation apikeys_reservation;
    reservations apikeys_reservation[] := '{}';
BEGIN
    SELECT array_agg(item.id), array_agg(item.key_id), array_agg(item.team_id) INTO ids, keys, teams
    FROM jsonb_to_recordset(items) AS item(id text, key_id text, team_id text);
    limit_ids := apikeys_limits_met(keys, teams);
    IF limit_ids = '{}' THEN
        RETURN;
    END IF;
    -- Nobody waits for the disk here. Should the database itself crash, what was reserved in the last second is
    -- forgotten, counter and reservation alike, of requests that have not been recorded yet: settling waits for it.
    setting := set_config('synchronous_commit', 'off', true);
    counters := apikeys_lock_counters(limit_ids);
    moment := apikeys_moment_of(counters);
    limit_ids := apikeys_limit_ids(counters);
    limit_rows := apikeys_read_limits(limit_ids);
    FOR place IN 1 .. cardinality(counters) LOOP
        counters[place] := apikeys_begin_period(counters[place], limit_rows[place], moment);
        descriptions[place] := apikeys_describe_limit(limit_rows[place], counters[place], moment);
        limit_keys[place] := limit_rows[place].key_id;
        limit_teams[place] := CASE WHEN limit_rows[place].key_id IS NULL THEN limit_rows[place].team_id END;
    END LOOP;
    FOR request IN
        SELECT (item ->> 'ordinal')::int AS ordinal, (item ->> 'tokens')::bigint AS tokens,
            (item ->> 'micropoints')::bigint AS micropoints,
            jsonb_populate_record(NULL::apikeys_reservation, item) AS reservation,
            item ->> 'id' = ANY (ARRAY(SELECT id FROM apikeys_reservation WHERE id = ANY (ids))) AS is_known
        FROM jsonb_array_elements(items) AS item
    LOOP
        ordinal := request.ordinal;
        refused_by := NULL;
        limits := NULL;
        IF request.is_known THEN
            -- The connection broke before the answer came: it was admitted.
            RETURN NEXT;
            CONTINUE;
        END IF;
        reservation := request.reservation;
        places := apikeys_places_met(limit_keys, limit_teams, reservation.key_id, reservation.team_id);
        -- It may meet no limit, where others of the batch do.
        CONTINUE WHEN places = '{}';
        reservation.admitted_at := moment;
        reservation := apikeys_weigh(
            reservation, request.tokens, request.micropoints, places, counters, limit_rows, descriptions);
        limits := reservation.limits_seen;
        IF reservation.admitted_at IS NULL THEN
            refused_by := apikeys_refusing_limit(places, reservation.amounts, counters, limit_rows);
        ELSE
            FOR part IN 1 .. cardinality(places) LOOP
                counters[places[part]].reserved := counters[places[part]].reserved + reservation.amounts[part];
            END LOOP;
            reservations := reservations || reservation;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF reservations <> '{}' THEN
        PERFORM apikeys_save_reservations(reservations, limit_ids, counters);
    END IF;
END $$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_reserve(jsonb);
DROP FUNCTION IF EXISTS apikeys_save_reservations(apikeys_reservation[], bigint[], apikeys_counter[]);
DROP FUNCTION IF EXISTS apikeys_refusing_limit(int[], bigint[], apikeys_counter[], apikeys_limit[]);
DROP FUNCTION IF EXISTS apikeys_refuses_longer(apikeys_limit, apikeys_counter, apikeys_limit, apikeys_counter);
DROP FUNCTION IF EXISTS apikeys_weigh(
    apikeys_reservation, bigint, bigint, int[], apikeys_counter[], apikeys_limit[], text[]);
DROP FUNCTION IF EXISTS apikeys_places_met(text[], text[], text, text);
DROP FUNCTION IF EXISTS apikeys_describe_limit(apikeys_limit, apikeys_counter, timestamptz);
DROP FUNCTION IF EXISTS apikeys_moment_of(apikeys_counter[]);
