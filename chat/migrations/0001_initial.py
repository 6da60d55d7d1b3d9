import apikeys.object_ids
import apikeys.teams
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("apikeys", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Conversation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("chat_id", models.CharField(max_length=250)),
                ("custom_uid", models.CharField(blank=True, max_length=1024)),
                ("metadata", models.JSONField(blank=True, default=dict)),
                ("variables", models.JSONField(blank=True, default=dict)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("updated_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "ordering": ["-updated_at"],
            },
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("data_id", models.CharField(max_length=250)),
                ("role", models.CharField(max_length=10)),
                ("content", models.JSONField()),
                ("response_data", models.JSONField(blank=True, null=True)),
                ("outcome", models.CharField(default="complete", max_length=10)),
                ("request_id", models.CharField(max_length=24)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="Price",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("model", models.CharField(max_length=200)),
                ("prompt_micropoints", models.PositiveBigIntegerField(default=0)),
                ("completion_micropoints", models.PositiveBigIntegerField(default=0)),
            ],
            options={
                "ordering": ["model"],
            },
        ),
        migrations.CreateModel(
            name="Provider",
            fields=[
                (
                    "id",
                    apikeys.teams.ObjectIdField(
                        default=apikeys.object_ids.new_object_id,
                        editable=False,
                        max_length=24,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("base_url", models.CharField(max_length=500)),
                ("encrypted_secret", models.BinaryField(null=True)),
                ("connect_seconds", models.PositiveSmallIntegerField(default=5)),
                ("first_byte_seconds", models.PositiveSmallIntegerField(default=60)),
                ("between_chunks_seconds", models.PositiveSmallIntegerField(default=60)),
                ("total_seconds", models.PositiveSmallIntegerField(default=600)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="App",
            fields=[
                (
                    "id",
                    apikeys.teams.ObjectIdField(
                        default=apikeys.object_ids.new_object_id,
                        editable=False,
                        max_length=24,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("intro", models.CharField(blank=True, max_length=500)),
                ("model", models.CharField(max_length=200)),
                ("system_prompt", models.TextField(blank=True)),
                ("max_tokens", models.PositiveIntegerField(default=1024)),
                ("temperature", models.FloatField(blank=True, null=True)),
                ("history_length", models.PositiveSmallIntegerField(default=12)),
                ("can_override", models.BooleanField(default=False)),
                ("dialect", models.CharField(default="4.14", max_length=10)),
                ("search_mode", models.CharField(default="embedding", max_length=20)),
                ("similarity", models.FloatField(default=0.0)),
                ("quote_limit", models.PositiveIntegerField(default=1500)),
                ("uses_rerank", models.BooleanField(default=False)),
                ("quote_template", models.TextField(blank=True, max_length=10000)),
                ("quote_prompt", models.TextField(blank=True, max_length=10000)),
                ("empty_answer", models.TextField(blank=True, max_length=10000)),
                ("archived_at", models.DateTimeField(blank=True, null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "team",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="apps", to="apikeys.team"
                    ),
                ),
            ],
            options={
                "ordering": ["name"],
                "permissions": [("try_app", "Can try app")],
            },
        ),
        migrations.CreateModel(
            name="AppDataset",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                (
                    "app",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="chat.app"
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
    ]
