"""Calls of tools and their results, as messages of a conversation."""

from django.db import migrations, models

from apikeys.sql.operations import RunSqlFile


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0008_app_model"),
    ]

    operations = [
        migrations.AddField(
            model_name="message",
            name="extras",
            field=models.JSONField(blank=True, null=True),
        ),
        RunSqlFile("chat", "latest_message", "eb173de397af0bcd"),
        # Without their calls, results of tools mean nothing.
        migrations.RunSQL(migrations.RunSQL.noop, "DELETE FROM chat_message WHERE role NOT IN ('user', 'assistant')"),
    ]
