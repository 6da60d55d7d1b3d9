-- A new limit also counts what was used earlier in its period. The lock lets no record slip past the sum.
CREATE OR REPLACE FUNCTION apikeys_start_counter() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    start timestamptz := apikeys_period_start(NEW.period, NEW.time_zone, clock_timestamp());
BEGIN
    LOCK TABLE apikeys_usagerecord IN SHARE MODE;
    INSERT INTO apikeys_counter (limit_id, period_start, used, reserved)
    SELECT NEW.id, start, apikeys_used_in_ledger(NEW.id, start), 0
    ON CONFLICT (limit_id) DO UPDATE SET period_start = excluded.period_start, used = excluded.used, reserved = 0;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER start_counter AFTER INSERT ON apikeys_limit FOR EACH ROW
    EXECUTE FUNCTION apikeys_start_counter();
CREATE OR REPLACE TRIGGER restart_counter AFTER UPDATE ON apikeys_limit FOR EACH ROW
    WHEN ((OLD.team_id, OLD.key_id, OLD.measure, OLD.period, OLD.time_zone)
        IS DISTINCT FROM (NEW.team_id, NEW.key_id, NEW.measure, NEW.period, NEW.time_zone))
    EXECUTE FUNCTION apikeys_start_counter();

-- migrate:down
DROP TRIGGER IF EXISTS restart_counter ON apikeys_limit;
DROP TRIGGER IF EXISTS start_counter ON apikeys_limit;
DROP FUNCTION IF EXISTS apikeys_start_counter();
