-- Returns the start of a moment's period, in the limit's time zone. The periods 'now' and 'total' have a single one.
CREATE OR REPLACE FUNCTION apikeys_period_start(period text, zone text, moment timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN period IN ('now', 'total') THEN timestamptz 'epoch'
        WHEN period = 'minute' THEN date_trunc('minute', moment)
        ELSE date_trunc(period, moment, zone)
    END
$$;

-- Returns the end of a period that began at `start`; NULL if it has none.
CREATE OR REPLACE FUNCTION apikeys_period_end(period text, zone text, start timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN period IN ('now', 'total') THEN NULL
        WHEN period = 'minute' THEN start + interval '1 minute'
        ELSE ((start AT TIME ZONE zone) + ('1 ' || period)::interval) AT TIME ZONE zone
    END
$$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_period_end(text, text, timestamptz);
DROP FUNCTION IF EXISTS apikeys_period_start(text, text, timestamptz);
