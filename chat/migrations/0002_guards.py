"""What the database itself holds: tenancy across tables, and that a provider's secret goes to one URL only."""

from django.db import migrations

DO = """
ALTER TABLE chat_app ADD CONSTRAINT app_provider_in_team
    FOREIGN KEY (provider_id, team_id) REFERENCES chat_provider (id, team_id) DEFERRABLE INITIALLY DEFERRED;

-- A secret that was given for one address is not sent to another one.
CREATE FUNCTION clear_provider_secret() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.encrypted_secret := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER clear_secret BEFORE UPDATE ON chat_provider FOR EACH ROW
    WHEN (OLD.base_url <> NEW.base_url AND OLD.encrypted_secret IS NOT DISTINCT FROM NEW.encrypted_secret)
    EXECUTE FUNCTION clear_provider_secret();

CREATE TRIGGER policy_updated AFTER UPDATE ON chat_provider FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION notify_policy_changed();
CREATE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON chat_provider
    FOR EACH STATEMENT EXECUTE FUNCTION notify_policy_changed();
CREATE TRIGGER policy_updated AFTER UPDATE ON chat_app FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION notify_policy_changed();
CREATE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON chat_app
    FOR EACH STATEMENT EXECUTE FUNCTION notify_policy_changed();
"""

UNDO = """
DROP TRIGGER policy_inserted_or_deleted ON chat_app;
DROP TRIGGER policy_updated ON chat_app;
DROP TRIGGER policy_inserted_or_deleted ON chat_provider;
DROP TRIGGER policy_updated ON chat_provider;
DROP TRIGGER clear_secret ON chat_provider;
DROP FUNCTION clear_provider_secret();
ALTER TABLE chat_app DROP CONSTRAINT app_provider_in_team;
"""


class Migration(migrations.Migration):
    dependencies = [("chat", "0001_initial"), ("apikeys", "0003_guards")]

    operations = [migrations.RunSQL(DO, UNDO)]
