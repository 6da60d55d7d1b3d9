"""The end of a key lies in years that every time zone can show."""

from django.db import migrations, models

import apikeys.models

# What was stored before there was a bound ends at the bound.
CLAMP = """
UPDATE apikeys_apikey
SET expires_at = least(greatest(expires_at, '2000-01-01 00:00:00Z'), '9998-12-31 23:59:59Z')
WHERE expires_at < '2000-01-01 00:00:00Z' OR expires_at >= '9999-01-01 00:00:00Z'
"""


class Migration(migrations.Migration):
    dependencies = [("apikeys", "0014_labels")]

    operations = [
        migrations.RunSQL(CLAMP, migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="apikey",
            name="expires_at",
            field=models.DateTimeField(
                blank=True,
                help_text="Empty means that the key never expires.",
                null=True,
                validators=[apikeys.models.validate_end],
                verbose_name="expires at",
            ),
        ),
    ]
