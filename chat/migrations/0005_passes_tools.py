"""Whether an app passes tools on to its model."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0004_fewer_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="app",
            name="passes_tools",
            field=models.BooleanField(blank=True, null=True),
        ),
    ]
