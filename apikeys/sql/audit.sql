-- Refuses every change of an entry, and its deletion except by apikeys_prune_audit().
CREATE OR REPLACE FUNCTION apikeys_guard_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('fastgpt.pruning_audit', true) = 'on'
        AND OLD.timestamp < now() - interval '90 days' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'entries of the audit are never changed, and deleted by apikeys_prune_audit() alone'
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE OR REPLACE TRIGGER guard BEFORE UPDATE OR DELETE ON apikeys_auditentry FOR EACH ROW
    EXECUTE FUNCTION apikeys_guard_audit();
CREATE OR REPLACE TRIGGER guard_whole BEFORE TRUNCATE ON apikeys_auditentry FOR EACH STATEMENT
    EXECUTE FUNCTION apikeys_guard_audit();

-- Deletes entries that are older than so many days, at least 90. Returns their number.
CREATE OR REPLACE FUNCTION apikeys_prune_audit(days integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE deleted bigint;
BEGIN
    IF days < 90 THEN
        RAISE EXCEPTION 'the audit keeps at least 90 days' USING ERRCODE = 'restrict_violation';
    END IF;
    PERFORM set_config('fastgpt.pruning_audit', 'on', true);
    DELETE FROM apikeys_auditentry WHERE timestamp < now() - make_interval(days => days);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM set_config('fastgpt.pruning_audit', 'off', true);
    RETURN deleted;
END $$;

-- migrate:down
DROP FUNCTION IF EXISTS apikeys_prune_audit(integer);
DROP TRIGGER IF EXISTS guard_whole ON apikeys_auditentry;
DROP TRIGGER IF EXISTS guard ON apikeys_auditentry;
DROP FUNCTION IF EXISTS apikeys_guard_audit();
