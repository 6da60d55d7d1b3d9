-- The catalog is policy: see apikeys_notify_policy_changed().
CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON chat_catalogmodel FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON chat_catalogmodel
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON chat_route FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON chat_route
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();

-- A model, its routes and their providers belong to one team, and so do an app and its model. A route's team is given
-- to the row here.
CREATE OR REPLACE FUNCTION chat_fill_team_of_route() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT team_id INTO NEW.team_id FROM chat_catalogmodel WHERE id = NEW.model_id;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER fill_team BEFORE INSERT OR UPDATE ON chat_route
    FOR EACH ROW EXECUTE FUNCTION chat_fill_team_of_route();
ALTER TABLE chat_route
    DROP CONSTRAINT IF EXISTS route_model_in_team,
    ADD CONSTRAINT route_model_in_team FOREIGN KEY (model_id, team_id)
        REFERENCES chat_catalogmodel (id, team_id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE chat_route
    DROP CONSTRAINT IF EXISTS route_provider_in_team,
    ADD CONSTRAINT route_provider_in_team FOREIGN KEY (provider_id, team_id)
        REFERENCES chat_provider (id, team_id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE chat_app
    DROP CONSTRAINT IF EXISTS app_model_in_team,
    ADD CONSTRAINT app_model_in_team FOREIGN KEY (model_id, team_id)
        REFERENCES chat_catalogmodel (id, team_id) DEFERRABLE INITIALLY DEFERRED;

-- Headers that were given for one address are not sent to another one, as little as the secret is.
CREATE OR REPLACE FUNCTION chat_clear_provider_headers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.encrypted_headers := NULL;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER clear_headers BEFORE UPDATE ON chat_provider FOR EACH ROW
    WHEN (OLD.base_url <> NEW.base_url AND OLD.encrypted_headers IS NOT DISTINCT FROM NEW.encrypted_headers)
    EXECUTE FUNCTION chat_clear_provider_headers();

-- migrate:down
DROP TRIGGER IF EXISTS clear_headers ON chat_provider;
DROP FUNCTION IF EXISTS chat_clear_provider_headers();
ALTER TABLE chat_app DROP CONSTRAINT IF EXISTS app_model_in_team;
ALTER TABLE chat_route DROP CONSTRAINT IF EXISTS route_provider_in_team;
ALTER TABLE chat_route DROP CONSTRAINT IF EXISTS route_model_in_team;
DROP TRIGGER IF EXISTS fill_team ON chat_route;
DROP FUNCTION IF EXISTS chat_fill_team_of_route();
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON chat_route;
DROP TRIGGER IF EXISTS policy_updated ON chat_route;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON chat_catalogmodel;
DROP TRIGGER IF EXISTS policy_updated ON chat_catalogmodel;
