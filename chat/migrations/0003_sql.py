"""Triggers and functions of the database: it announces changes, keeps tenants apart, and clears secrets."""

from django.db import migrations

from apikeys.sql.operations import RunSqlFile


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0002_relations"),
        ("apikeys", "0003_sql"),
    ]

    operations = [
        RunSqlFile("chat", "notify", "72096ca751158523"),
        RunSqlFile("chat", "tenancy", "7184e4db3f17e592"),
        RunSqlFile("chat", "provider_secrets", "ff5d33353960bcd8"),
    ]
