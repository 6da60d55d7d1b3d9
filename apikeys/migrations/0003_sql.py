"""What the database itself does: it announces changes, keeps what never changes, counts, and guards the audit."""

from django.db import migrations

from apikeys.sql.operations import RunSqlFile


class Migration(migrations.Migration):
    dependencies = [
        ("apikeys", "0002_relations"),
        ("chat", "0002_relations"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        RunSqlFile("apikeys", "notify", "e43006f37b85259a"),
        RunSqlFile("apikeys", "guards", "31f093b70cc6a00d"),
        RunSqlFile("apikeys", "periods", "5fcf635d0144289d"),
        RunSqlFile("apikeys", "used_in_ledger", "f026c251d5633c9f"),
        RunSqlFile("apikeys", "counters", "facd4ea47d0e3966"),
        RunSqlFile("apikeys", "limits_met", "e8c6263a0680df45"),
        RunSqlFile("apikeys", "budget_alerts", "599df2c197800add"),
        RunSqlFile("apikeys", "reserve", "e51a36a23e32847a"),
        RunSqlFile("apikeys", "settle", "eff5edaa4c8251b7"),
        RunSqlFile("apikeys", "release", "6c55b155ab3c8bcd"),
        RunSqlFile("apikeys", "expire_reservations", "9c885db26a89e36c"),
        RunSqlFile("apikeys", "server_calls", "60da7dd785c3b708"),
        RunSqlFile("apikeys", "audit", "f9d23c0e4cdcc4a8"),
        RunSqlFile("apikeys", "late_hours", "9cbff58695c8f4e9"),
        RunSqlFile("apikeys", "indexes", "26c7aa8bae728901"),
    ]
