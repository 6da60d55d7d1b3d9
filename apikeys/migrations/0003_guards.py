"""What the database itself holds: who hears of a change of policy, and what never changes at all."""

from django.conf import settings
from django.db import migrations

FUNCTIONS = """
CREATE FUNCTION notify_policy_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('policy_changed', '');
    RETURN NULL;
END $$;

CREATE FUNCTION guard_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
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
"""

# Of each table: the columns that decide. A secret that only moves to another pepper stays the same secret.
POLICY = {
    "apikeys_team": "OLD.disabled_at IS DISTINCT FROM NEW.disabled_at",
    "apikeys_membership": "OLD.* IS DISTINCT FROM NEW.*",
    "apikeys_apikey": """
        (OLD.owner_id, OLD.name, OLD.expires_at, OLD.can_name_app, OLD.allowed_networks, OLD.allowed_endpoints,
         OLD.allowed_models, OLD.disabled_at, OLD.revoked_at) IS DISTINCT FROM
        (NEW.owner_id, NEW.name, NEW.expires_at, NEW.can_name_app, NEW.allowed_networks, NEW.allowed_endpoints,
         NEW.allowed_models, NEW.disabled_at, NEW.revoked_at)""",
    "apikeys_keysecret": """
        (OLD.key_id, OLD.expires_at, OLD.is_imported) IS DISTINCT FROM (NEW.key_id, NEW.expires_at, NEW.is_imported)
        OR (OLD.digest <> NEW.digest AND OLD.pepper_id = NEW.pepper_id)""",
    "apikeys_endpointrule": "OLD.* IS DISTINCT FROM NEW.*",
    "auth_user": "(OLD.username, OLD.is_active) IS DISTINCT FROM (NEW.username, NEW.is_active)",
}

TRIGGERS = "".join(
    f"""
CREATE TRIGGER policy_updated AFTER UPDATE ON {table} FOR EACH ROW
    WHEN ({condition}) EXECUTE FUNCTION notify_policy_changed();
CREATE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION notify_policy_changed();
"""
    for table, condition in POLICY.items()
)

GUARD = """
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON apikeys_apikey FOR EACH ROW EXECUTE FUNCTION guard_api_key();
ALTER TABLE apikeys_apikey ADD CONSTRAINT apikey_app_in_team
    FOREIGN KEY (app_id, team_id) REFERENCES chat_app (id, team_id) DEFERRABLE INITIALLY DEFERRED;
"""

UNDO = "".join(
    f"""
DROP TRIGGER policy_updated ON {table};
DROP TRIGGER policy_inserted_or_deleted ON {table};
"""
    for table in POLICY
)
UNDO += """
ALTER TABLE apikeys_apikey DROP CONSTRAINT apikey_app_in_team;
DROP TRIGGER guard ON apikeys_apikey;
DROP FUNCTION guard_api_key();
DROP FUNCTION notify_policy_changed();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0002_relations"),
        ("chat", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [migrations.RunSQL(FUNCTIONS + TRIGGERS + GUARD, UNDO)]
