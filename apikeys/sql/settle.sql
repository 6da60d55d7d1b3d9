-- Removes the reservations of these requests, and returns each at the place of its request.
CREATE OR REPLACE FUNCTION apikeys_take_reservations(ids text[]) RETURNS apikeys_reservation[] LANGUAGE plpgsql AS $$
DECLARE
    reservation apikeys_reservation;
    reservations apikeys_reservation[];
BEGIN
    FOR reservation IN DELETE FROM apikeys_reservation AS gone WHERE gone.id = ANY (ids) RETURNING gone.* LOOP
        reservations[array_position(ids, reservation.id::text)] := reservation;
    END LOOP;
    RETURN reservations;
END $$;

-- Removes the records of these requests that were written off as lost, and returns each at the place of its request.
CREATE OR REPLACE FUNCTION apikeys_take_lost_records(ids text[]) RETURNS apikeys_usagerecord[] LANGUAGE plpgsql AS $$
DECLARE
    lost_record apikeys_usagerecord;
    lost_records apikeys_usagerecord[];
BEGIN
    FOR lost_record IN
        DELETE FROM apikeys_usagerecord AS gone WHERE gone.id = ANY (ids) AND gone.outcome = 'lost' RETURNING gone.*
    LOOP
        lost_records[array_position(ids, lost_record.id::text)] := lost_record;
    END LOOP;
    RETURN lost_records;
END $$;

-- Moves a locked counter on to the period of the latest of the requests in these places, which it counts.
CREATE OR REPLACE FUNCTION apikeys_begin_latest_period(
    counter apikeys_counter, a_limit apikeys_limit, records apikeys_usagerecord[], places int[]
) RETURNS apikeys_counter LANGUAGE plpgsql AS $$
DECLARE
    latest timestamptz;
    place int;
BEGIN
    FOREACH place IN ARRAY places LOOP
        latest := greatest(latest, records[place].created_at);
    END LOOP;
    RETURN apikeys_begin_period(counter, a_limit, latest);
END $$;

-- Returns how much a usage record charges at a limit with this measure; where there is no record, nothing.
CREATE OR REPLACE FUNCTION apikeys_charge_of(measure text, record apikeys_usagerecord) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN record.id IS NULL THEN 0 ELSE apikeys_charge(
        measure, record.prompt_tokens::bigint + record.completion_tokens, record.cost_micropoints, 0) END
$$;

-- Describes a limit that a request did not find when it was admitted, because it was made meanwhile.
CREATE OR REPLACE FUNCTION apikeys_describe_late_limit(a_limit apikeys_limit, counter apikeys_counter) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN jsonb_build_object(
        'id', a_limit.id, 'is_team', a_limit.key_id IS NULL, 'measure', a_limit.measure, 'period', a_limit.period,
        'time_zone', a_limit.time_zone, 'since', counter.period_start, 'amount', a_limit.amount);
END $$;

-- Charges each record to the limits that it meets, takes back the charge of a lost record, and gives back what was
-- reserved; a record that is in the ledger already charges nothing. Returns the records with what each left at its
-- limits, as if the batch had come one by one.
CREATE OR REPLACE FUNCTION apikeys_charge_limits(
    counters apikeys_counter[], keys text[], teams text[], records apikeys_usagerecord[], recorded_ids text[],
    lost_records apikeys_usagerecord[], reservations apikeys_reservation[], latest timestamptz
) RETURNS apikeys_usagerecord[] LANGUAGE plpgsql AS $$
DECLARE
    limit_ids bigint[] := apikeys_limit_ids(counters);
    limit_rows apikeys_limit[] := apikeys_read_limits(limit_ids);
    counter apikeys_counter;
    a_limit apikeys_limit;
    -- The present limit stands at this part of a reservation, and counts the requests at these places.
    part int;
    places int[];
    place int;
    charge bigint;
    charges text[];
    -- The limits that a request is known to have met.
    seen jsonb;
    is_alarming boolean := false;
BEGIN
    FOR number IN 1 .. cardinality(counters) LOOP
        counter := counters[number];
        a_limit := limit_rows[number];
        places := CASE WHEN a_limit.key_id IS NULL THEN array_positions(teams, a_limit.team_id::text)
            ELSE array_positions(keys, a_limit.key_id::text) END;
        IF counter.period_start < apikeys_period_start(a_limit.period, a_limit.time_zone, latest) THEN
            counter := apikeys_begin_latest_period(counter, a_limit, records, places);
        END IF;
        FOREACH place IN ARRAY places LOOP
            charge := CASE WHEN records[place].id = ANY (recorded_ids) THEN 0
                ELSE apikeys_charge_of(a_limit.measure, records[place]) END;
            IF records[place].created_at >= counter.period_start THEN
                counter.used := counter.used + charge - apikeys_charge_of(a_limit.measure, lost_records[place]);
            END IF;
            part := array_position(reservations[place].limit_ids, a_limit.id);
            IF reservations[place].period_starts[part] = counter.period_start THEN
                counter.reserved := greatest(0, counter.reserved - reservations[place].amounts[part]);
            END IF;
            charges[place] := concat_ws(', ', charges[place],
                format('"%s": [%s, %s, %s]', a_limit.id, charge, counter.used, counter.reserved));
            seen := coalesce(records[place].limits, '[]');
            IF NOT seen @> format('[{"id": %s}]', a_limit.id)::jsonb THEN
                records[place].limits := seen || apikeys_describe_late_limit(a_limit, counter);
            END IF;
        END LOOP;
        counters[number] := counter;
        is_alarming := is_alarming OR (a_limit.period NOT IN ('now', 'minute')
            AND (counter.used >= a_limit.amount - counter.used OR counter.used >= a_limit.soft_amount));
    END LOOP;
    UPDATE apikeys_counter SET used = (counters[array_position(limit_ids, limit_id)]).used,
        reserved = (counters[array_position(limit_ids, limit_id)]).reserved
    WHERE limit_id = ANY (limit_ids);
    IF is_alarming THEN
        PERFORM apikeys_raise_budget_alerts(limit_ids);
    END IF;
    FOR place IN 1 .. cardinality(records) LOOP
        records[place].charges := '{' || charges[place] || '}';
    END LOOP;
    RETURN records;
END $$;

-- Writes usage to the ledger, charges it, and gives back what was reserved for it. Once for each id, however often
-- it is called; only a row `lost` is replaced, by what really came of the request. Returns the ids that were new.
CREATE OR REPLACE FUNCTION apikeys_settle(items jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    -- These are in the order of the items.
    records apikeys_usagerecord[];
    ids text[];
    keys text[];
    teams text[];
    reservations apikeys_reservation[];
    lost_records apikeys_usagerecord[];
    -- A batch is made of requests that ended, or of those that are written off, never of both.
    is_expiry boolean := items -> 0 ->> 'outcome' = 'lost';
    recorded_ids text[];
    limit_ids bigint[];
    latest timestamptz;
BEGIN
    SELECT array_agg(item), array_agg(item.id), array_agg(item.key_id), array_agg(item.team_id)
    INTO records, ids, keys, teams
    FROM jsonb_populate_recordset(
        jsonb_populate_record(NULL::apikeys_usagerecord, '{"prompt_price": 0, "completion_price": 0}'), items
    ) AS item;

    -- Reservations go first: whoever removes one settles it.
    reservations := apikeys_take_reservations(ids);

    -- From here on no limit can be made whose sum of the ledger would miss what is written below: see start_counter.
    LOCK TABLE apikeys_usagerecord IN ROW EXCLUSIVE MODE;

    -- What is recorded already is not charged again, but what was written off is taken back. Should another call be
    -- recording the same at this moment, the insert below fails, everything here with it, and the next try sees it.
    recorded_ids := ARRAY(SELECT usage.id FROM apikeys_usagerecord AS usage WHERE usage.id = ANY (ids));
    IF recorded_ids <> '{}' AND NOT is_expiry THEN
        lost_records := apikeys_take_lost_records(ids);
        recorded_ids := ARRAY(SELECT unnest(recorded_ids) EXCEPT SELECT lost.id FROM unnest(lost_records) AS lost);
    END IF;
    FOR place IN 1 .. cardinality(ids) LOOP
        records[place].created_at :=
            coalesce(reservations[place].admitted_at, lost_records[place].created_at, statement_timestamp());
        latest := greatest(latest, records[place].created_at);
        records[place].limits := coalesce(
            nullif(reservations[place].limits_seen, '[]'), nullif(lost_records[place].limits, 'null'));
    END LOOP;

    -- Most requests meet no limit, and skip this.
    limit_ids := apikeys_limits_met(keys, teams);
    IF limit_ids <> '{}' THEN
        records := apikeys_charge_limits(
            apikeys_lock_counters(limit_ids), keys, teams, records, recorded_ids, lost_records, reservations, latest);
    END IF;

    IF NOT is_expiry THEN
        INSERT INTO apikeys_keyactivity (key_id, last_used_at, last_used_from)
        SELECT DISTINCT ON (record.key_id) record.key_id, statement_timestamp(), record.client_address
        FROM unnest(records) AS record
        ORDER BY record.key_id
        ON CONFLICT (key_id) DO UPDATE
        SET last_used_at = greatest(excluded.last_used_at, apikeys_keyactivity.last_used_at),
            last_used_from = excluded.last_used_from;
    END IF;
    RETURN QUERY
    INSERT INTO apikeys_usagerecord AS recorded
    SELECT record.* FROM unnest(records) AS record WHERE record.id <> ALL (recorded_ids)
    RETURNING recorded.id::text;
END $$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_settle(jsonb);
DROP FUNCTION IF EXISTS apikeys_charge_limits(apikeys_counter[], text[], text[], apikeys_usagerecord[], text[],
    apikeys_usagerecord[], apikeys_reservation[], timestamptz);
DROP FUNCTION IF EXISTS apikeys_describe_late_limit(apikeys_limit, apikeys_counter);
DROP FUNCTION IF EXISTS apikeys_charge_of(text, apikeys_usagerecord);
DROP FUNCTION IF EXISTS apikeys_begin_latest_period(apikeys_counter, apikeys_limit, apikeys_usagerecord[], int[]);
DROP FUNCTION IF EXISTS apikeys_take_lost_records(text[]);
DROP FUNCTION IF EXISTS apikeys_take_reservations(text[]);
