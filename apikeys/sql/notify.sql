-- Notifies every server process that policy has changed, so that it drops what it has cached.
CREATE OR REPLACE FUNCTION apikeys_notify_policy_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('policy_changed', '');
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON apikeys_team FOR EACH ROW
    WHEN (OLD.disabled_at IS DISTINCT FROM NEW.disabled_at) EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON apikeys_team
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();

CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON apikeys_membership FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON apikeys_membership
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();

CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON apikeys_apikey FOR EACH ROW
    WHEN (
        (OLD.owner_id, OLD.name, OLD.expires_at, OLD.can_name_app, OLD.allowed_networks, OLD.allowed_endpoints,
         OLD.allowed_models, OLD.disabled_at, OLD.revoked_at) IS DISTINCT FROM
        (NEW.owner_id, NEW.name, NEW.expires_at, NEW.can_name_app, NEW.allowed_networks, NEW.allowed_endpoints,
         NEW.allowed_models, NEW.disabled_at, NEW.revoked_at)) EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON apikeys_apikey
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();

CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON apikeys_keysecret FOR EACH ROW
    WHEN (
        (OLD.key_id, OLD.expires_at, OLD.is_imported) IS DISTINCT FROM (NEW.key_id, NEW.expires_at, NEW.is_imported)
        OR (OLD.digest <> NEW.digest AND OLD.pepper_id = NEW.pepper_id))
    EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON apikeys_keysecret
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();

CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON apikeys_endpointrule FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON apikeys_endpointrule
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();

CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON auth_user FOR EACH ROW
    WHEN ((OLD.username, OLD.is_active) IS DISTINCT FROM (NEW.username, NEW.is_active))
    EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON auth_user
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON apikeys_limit
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON apikeys_limit FOR EACH ROW
    WHEN ((OLD.team_id, OLD.key_id) IS DISTINCT FROM (NEW.team_id, NEW.key_id))
    EXECUTE FUNCTION apikeys_notify_policy_changed();

-- migrate:down
DROP TRIGGER IF EXISTS policy_updated ON apikeys_team;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON apikeys_team;
DROP TRIGGER IF EXISTS policy_updated ON apikeys_membership;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON apikeys_membership;
DROP TRIGGER IF EXISTS policy_updated ON apikeys_apikey;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON apikeys_apikey;
DROP TRIGGER IF EXISTS policy_updated ON apikeys_keysecret;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON apikeys_keysecret;
DROP TRIGGER IF EXISTS policy_updated ON apikeys_endpointrule;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON apikeys_endpointrule;
DROP TRIGGER IF EXISTS policy_updated ON auth_user;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON auth_user;
DROP TRIGGER IF EXISTS policy_updated ON apikeys_limit;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON apikeys_limit;
DROP FUNCTION IF EXISTS apikeys_notify_policy_changed();
