"""A permission to talk to apps from the admin."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0011_long_lists"),
        ("chat", "0004_message_cut"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="app",
            options={"ordering": ["name"], "permissions": [("try_app", "Can try app")]},
        ),
    ]
