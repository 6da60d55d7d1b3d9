-- Providers, apps and their datasets are policy: see apikeys_notify_policy_changed().
CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON chat_provider FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON chat_provider
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON chat_app FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON chat_app
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_updated AFTER UPDATE ON chat_appdataset FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE OR REPLACE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON chat_appdataset
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();

-- migrate:down
-- A table of before, whose triggers come back when its removal is undone.
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON chat_price;
DROP TRIGGER IF EXISTS policy_updated ON chat_price;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON chat_provider;
DROP TRIGGER IF EXISTS policy_updated ON chat_provider;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON chat_app;
DROP TRIGGER IF EXISTS policy_updated ON chat_app;
DROP TRIGGER IF EXISTS policy_inserted_or_deleted ON chat_appdataset;
DROP TRIGGER IF EXISTS policy_updated ON chat_appdataset;
