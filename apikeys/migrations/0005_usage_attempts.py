"""What a request's routes answered, and what of its tokens has a price of its own."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0004_usage_failure"),
    ]

    operations = [
        migrations.AddField("usagerecord", "attempts", models.JSONField(null=True)),
        migrations.AddField("usagerecord", "details", models.JSONField(null=True)),
    ]
