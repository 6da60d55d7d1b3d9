"""Functions and triggers of the database: they announce changes, guard rows and the audit, and count usage."""

from django.db import migrations

from apikeys.sql.operations import RunSqlFile


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0002_relations"),
        ("chat", "0002_relations"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        RunSqlFile("apikeys", "notify", "d6a6f679aa48a501"),
        RunSqlFile("apikeys", "guards", "706b94804e457b52"),
        RunSqlFile("apikeys", "periods", "84a68e290c8c0d5c"),
        RunSqlFile("apikeys", "used_in_ledger", "fc446281c0d35588"),
        RunSqlFile("apikeys", "counters", "304dd724ad5411ba"),
        RunSqlFile("apikeys", "limits_met", "817a6af576fde583"),
        RunSqlFile("apikeys", "budget_alerts", "79f1ea9253b6ea27"),
        RunSqlFile("apikeys", "accounting", "236cd4f96b69d501"),
        RunSqlFile("apikeys", "reserve", "38aa3419c2cbf4e2"),
        RunSqlFile("apikeys", "settle", "691f44448a4099c3"),
        RunSqlFile("apikeys", "release", "426004c912971277"),
        RunSqlFile("apikeys", "expire_reservations", "e6b3c2eeae268fdc"),
        RunSqlFile("apikeys", "control_messages", "14de31b349c8d027"),
        RunSqlFile("apikeys", "audit", "65bbf2faa312a3a0"),
        RunSqlFile("apikeys", "late_hours", "7019afae0754d7b7"),
        RunSqlFile("apikeys", "indexes", "9615e9f1f0409d61"),
    ]
