-- When the period of a moment begins, in the time zone of its limit. Requests at the same time and totals have one.
CREATE OR REPLACE FUNCTION apikeys_period_start(period text, zone text, moment timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN period IN ('now', 'total') THEN timestamptz 'epoch'
        WHEN period = 'minute' THEN date_trunc('minute', moment)
        ELSE date_trunc(period, moment, zone)
    END
$$;

-- When a period ends that began at `start`; NULL for one without an end.
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
