-- Refuses to delete a key, to change its team or app, and to undo its revocation.
CREATE OR REPLACE FUNCTION apikeys_guard_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'an API key is revoked, never deleted' USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.id, NEW.team_id) <> (OLD.id, OLD.team_id) OR NEW.app_id IS DISTINCT FROM OLD.app_id THEN
        RAISE EXCEPTION 'the team and the app of an API key never change' USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
        RAISE EXCEPTION 'a revoked API key stays revoked' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER guard BEFORE UPDATE OR DELETE ON apikeys_apikey FOR EACH ROW
    EXECUTE FUNCTION apikeys_guard_key();
ALTER TABLE apikeys_apikey
    DROP CONSTRAINT IF EXISTS apikey_app_in_team,
    ADD CONSTRAINT apikey_app_in_team FOREIGN KEY (app_id, team_id)
        REFERENCES chat_app (id, team_id) DEFERRABLE INITIALLY DEFERRED;

-- A key's limit belongs to the key's team.
ALTER TABLE apikeys_limit
    DROP CONSTRAINT IF EXISTS limit_key_in_team,
    ADD CONSTRAINT limit_key_in_team FOREIGN KEY (key_id, team_id)
        REFERENCES apikeys_apikey (id, team_id) DEFERRABLE INITIALLY DEFERRED;

-- migrate:down
ALTER TABLE apikeys_limit DROP CONSTRAINT IF EXISTS limit_key_in_team;
ALTER TABLE apikeys_apikey DROP CONSTRAINT IF EXISTS apikey_app_in_team;
DROP TRIGGER IF EXISTS guard ON apikeys_apikey;
DROP FUNCTION IF EXISTS apikeys_guard_key();
