"""Triggers and functions of the database: it removes what belongs to a removed row, keeps tenants apart, and finds words."""

from django.db import migrations

from apikeys.sql.operations import RunSqlFile


class Migration(migrations.Migration):
    dependencies = [
        ("datasets", "0001_initial"),
        ("chat", "0002_relations"),
    ]

    operations = [
        RunSqlFile("datasets", "ownership", "c16e4dc863414643"),
        RunSqlFile("datasets", "tenancy", "20b0b1bb2a8de2af"),
        RunSqlFile("datasets", "search", "66483f55c76252b9"),
    ]
