-- Raises an alert for the highest threshold that a budget has reached, and for its soft amount, once in a period for
-- each amount. A counter remembers its alerts, so that none is looked for twice. The caller has locked the counters.
CREATE OR REPLACE FUNCTION apikeys_raise_budget_alerts(met bigint[]) RETURNS void LANGUAGE plpgsql AS $$
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
    INSERT INTO apikeys_alert (team_id, key_id, kind, dedup_key, details)
    SELECT team_id, key_id, 'budget',
        format('budget:%s:%s:%s', limit_id, extract(epoch FROM period_start)::bigint,
            coalesce(percent || ':' || amount, 'soft:' || soft_amount)),
        jsonb_strip_nulls(jsonb_build_object(
            'limit_id', limit_id, 'measure', measure, 'period', period, 'time_zone', time_zone,
            'period_start', period_start, 'amount', amount, 'used', used, 'percent', percent,
            'soft_amount', CASE WHEN percent IS NULL THEN soft_amount END))
    FROM reached
    ON CONFLICT (dedup_key) DO NOTHING;
END $$;

-- A budget that was changed may be used up again, or may be used up by the change.
CREATE OR REPLACE FUNCTION apikeys_alert_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE apikeys_counter SET alerted = 0 WHERE limit_id = NEW.id;
    PERFORM apikeys_raise_budget_alerts(ARRAY[NEW.id]);
    RETURN NULL;
END $$;
-- A new or lowered budget may be spent already. Triggers run by name: after start_counter and restart_counter.
CREATE OR REPLACE TRIGGER then_alert AFTER INSERT ON apikeys_limit FOR EACH ROW EXECUTE FUNCTION apikeys_alert_again();
CREATE OR REPLACE TRIGGER then_alert_anew AFTER UPDATE ON apikeys_limit FOR EACH ROW
    WHEN ((OLD.team_id, OLD.key_id, OLD.measure, OLD.period, OLD.time_zone, OLD.amount, OLD.soft_amount)
        IS DISTINCT FROM (NEW.team_id, NEW.key_id, NEW.measure, NEW.period, NEW.time_zone, NEW.amount, NEW.soft_amount))
    EXECUTE FUNCTION apikeys_alert_again();

-- migrate:down
DROP TRIGGER IF EXISTS then_alert_anew ON apikeys_limit;
DROP TRIGGER IF EXISTS then_alert ON apikeys_limit;
DROP FUNCTION IF EXISTS apikeys_alert_again();
DROP FUNCTION IF EXISTS apikeys_raise_budget_alerts(bigint[]);
