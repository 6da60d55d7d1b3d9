"""An app names a model of its team; providers and prices are the model's."""

from typing import Any

import django.db.models.deletion
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from apikeys.sql.operations import RunSqlFile

# What the database insisted on, and announced, before: it comes back if this is undone.
GUARDS = """
ALTER TABLE chat_app ADD CONSTRAINT app_provider_in_team FOREIGN KEY (provider_id, team_id)
    REFERENCES chat_provider (id, team_id) DEFERRABLE INITIALLY DEFERRED;
CREATE TRIGGER policy_updated AFTER UPDATE ON chat_price FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION apikeys_notify_policy_changed();
CREATE TRIGGER policy_inserted_or_deleted AFTER INSERT OR DELETE ON chat_price
    FOR EACH STATEMENT EXECUTE FUNCTION apikeys_notify_policy_changed();
"""


def nothing(apps: Any, editor: BaseDatabaseSchemaEditor) -> None:
    """Every model of an app has a route when this is done."""


def check_routes(apps: Any, editor: BaseDatabaseSchemaEditor) -> None:
    models = apps.get_model("chat", "CatalogModel").objects
    lacking = models.filter(apps__isnull=False, routes=None).distinct().values_list("name", flat=True)
    if lacking:
        raise ValueError(f"Give these models a route first, for their apps need a provider: {', '.join(lacking)}")


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0007_fill_catalog"),
    ]

    operations = [
        migrations.RunSQL(migrations.RunSQL.noop, GUARDS),
        migrations.RemoveField("app", "provider"),
        migrations.RemoveField("app", "model"),
        migrations.RenameField("app", "catalog_model", "model"),
        migrations.AlterField(
            "app",
            "model",
            models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="apps", to="chat.catalogmodel"),
        ),
        migrations.DeleteModel("Price"),
        RunSqlFile("chat", "notify", "abc6b56e4da1e6fb", is_rerun=True),
        RunSqlFile("chat", "tenancy", "ef2cadfe6d11504f", is_rerun=True),
        RunSqlFile("chat", "catalog", "a87382b9c63e0fba"),
        migrations.RunPython(nothing, check_routes),
    ]
