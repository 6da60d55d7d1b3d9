"""An app names a model of its team; providers and prices are the model's."""

import django.db.models.deletion
from django.db import migrations, models

from apikeys.sql.operations import RunSqlFile

# Undone by hand: the column that it belonged to is made anew.
SAME_TEAM = """
ALTER TABLE chat_app ADD CONSTRAINT app_provider_in_team FOREIGN KEY (provider_id, team_id)
    REFERENCES chat_provider (id, team_id) DEFERRABLE INITIALLY DEFERRED
"""


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0007_fill_catalog"),
    ]

    operations = [
        migrations.RunSQL("ALTER TABLE chat_app DROP CONSTRAINT app_provider_in_team", SAME_TEAM),
        migrations.RemoveField("app", "provider"),
        migrations.RemoveField("app", "model"),
        migrations.RenameField("app", "catalog_model", "model"),
        migrations.AlterField(
            "app",
            "model",
            models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="apps", to="chat.catalogmodel"),
        ),
        migrations.DeleteModel("Price"),
        RunSqlFile("chat", "catalog", "a87382b9c63e0fba"),
    ]
