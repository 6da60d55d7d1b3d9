"""An app names a model of its team; providers and prices are the model's."""

import django.db.models.deletion
from django.db import migrations, models

from apikeys.sql.operations import RunSqlFile


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0007_fill_catalog"),
    ]

    operations = [
        migrations.RemoveField("app", "provider"),
        migrations.RemoveField("app", "model"),
        migrations.RenameField("app", "catalog_model", "model"),
        migrations.AlterField(
            "app",
            "model",
            models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="apps", to="chat.catalogmodel"),
        ),
        migrations.DeleteModel("Price"),
        RunSqlFile("chat", "notify", "60cdff34ec7e0400", is_rerun=True),
        RunSqlFile("chat", "tenancy", "6bba7d7c181b6b61", is_rerun=True),
        RunSqlFile("chat", "catalog", "a87382b9c63e0fba"),
    ]
