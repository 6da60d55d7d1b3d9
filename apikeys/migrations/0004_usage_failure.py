"""What a provider said when a request failed."""

from django.db import migrations, models

from apikeys.sql.operations import RunSqlFile


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0003_sql"),
    ]

    operations = [
        migrations.AddField(
            model_name="usagerecord",
            name="failure",
            field=models.JSONField(null=True),
        ),
        RunSqlFile("apikeys", "settle", "6704ca982d313030", is_rerun=True),
    ]
