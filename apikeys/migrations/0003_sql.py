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
        RunSqlFile("apikeys", "budget_alerts", "a47e49d483d30c11"),
        RunSqlFile("apikeys", "reserve", "529df031920e3b30"),
        RunSqlFile("apikeys", "settle", "33f23a84114e6592"),
        RunSqlFile("apikeys", "release", "6c55b155ab3c8bcd"),
        RunSqlFile("apikeys", "expire_reservations", "2de29909af17fad5"),
        RunSqlFile("apikeys", "control_messages", "6663b6c68e447ebe"),
        RunSqlFile("apikeys", "audit", "f9d23c0e4cdcc4a8"),
        RunSqlFile("apikeys", "late_hours", "bbcb646d776e41f8"),
        RunSqlFile("apikeys", "indexes", "26c7aa8bae728901"),
    ]
