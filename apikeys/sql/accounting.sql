-- Reserving and settling share these. A function that reads no table is not left VOLATILE, because PL/pgSQL takes a
-- snapshot for almost every expression of one that is. None returns a record, because the type of a record is made anew
-- in every transaction.

-- Returns how much a request charges at a limit with this measure; `open` is its charge among the open requests.
CREATE OR REPLACE FUNCTION apikeys_charge(measure text, tokens bigint, micropoints bigint, open bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE measure
        WHEN 'requests' THEN 1
        WHEN 'tokens' THEN tokens
        WHEN 'micropoints' THEN micropoints
        ELSE open
    END
$$;

-- Locks the counters of these limits, and returns them in the order of the limits' ids. Everybody locks them in this
-- order, so that no two transactions wait for each other.
CREATE OR REPLACE FUNCTION apikeys_lock_counters(limit_ids bigint[]) RETURNS apikeys_counter[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(
        SELECT counter FROM apikeys_counter AS counter WHERE counter.limit_id = ANY (limit_ids)
        ORDER BY counter.limit_id FOR UPDATE);
END $$;

-- Returns the ids of the limits whose counters are locked, each at the place of its counter. A limit that was removed
-- while its counter was waited for is not among them.
CREATE OR REPLACE FUNCTION apikeys_limit_ids(counters apikeys_counter[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    counter apikeys_counter;
    limit_ids bigint[] := '{}';
BEGIN
    FOREACH counter IN ARRAY counters LOOP
        limit_ids := limit_ids || counter.limit_id;
    END LOOP;
    RETURN limit_ids;
END $$;

-- Reads the limits of locked counters, each at the place of its counter: no counter is without its limit. This takes a
-- statement of its own, because a limit may have been changed while its counter was waited for.
CREATE OR REPLACE FUNCTION apikeys_read_limits(limit_ids bigint[]) RETURNS apikeys_limit[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(SELECT a_limit FROM apikeys_limit AS a_limit WHERE a_limit.id = ANY (limit_ids) ORDER BY a_limit.id);
END $$;

-- Moves a locked counter on to the period of `moment`, in which nothing is used, reserved or alerted yet. A counter
-- never moves back: a charge or a reservation of an earlier period than its own has gone with that period.
CREATE OR REPLACE FUNCTION apikeys_begin_period(counter apikeys_counter, a_limit apikeys_limit, moment timestamptz)
RETURNS apikeys_counter LANGUAGE plpgsql AS $$
BEGIN
    IF counter.period_start < apikeys_period_start(a_limit.period, a_limit.time_zone, moment) THEN
        UPDATE apikeys_counter SET
            period_start = apikeys_period_start(a_limit.period, a_limit.time_zone, moment),
            used = 0, reserved = 0, alerted = 0
        WHERE limit_id = counter.limit_id
        RETURNING * INTO counter;
    END IF;
    RETURN counter;
END $$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_begin_period(apikeys_counter, apikeys_limit, timestamptz);
DROP FUNCTION IF EXISTS apikeys_read_limits(bigint[]);
DROP FUNCTION IF EXISTS apikeys_limit_ids(apikeys_counter[]);
DROP FUNCTION IF EXISTS apikeys_lock_counters(bigint[]);
DROP FUNCTION IF EXISTS apikeys_charge(text, bigint, bigint, bigint);
