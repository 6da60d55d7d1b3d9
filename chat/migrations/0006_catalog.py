"""A team's models, and the routes by which they are had; what a provider is sent beside its secret."""

import apikeys.object_ids
import apikeys.teams
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0005_passes_tools"),
    ]

    operations = [
        migrations.AddField(
            "provider", "query", models.CharField(blank=True, max_length=500, default=""), preserve_default=False
        ),
        migrations.AddField("provider", "auth_header", models.CharField(default="Authorization", max_length=100)),
        migrations.AddField("provider", "encrypted_headers", models.BinaryField(null=True)),
        migrations.CreateModel(
            name="CatalogModel",
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
                ("name", models.CharField(max_length=200)),
                ("kind", models.CharField(default="chat", max_length=10)),
                ("takes_tools", models.BooleanField(default=True)),
                ("takes_images", models.BooleanField(default=True)),
                ("takes_json_schema", models.BooleanField(default=True)),
                ("context_length", models.PositiveIntegerField(blank=True, null=True)),
                ("prompt_price", models.PositiveBigIntegerField(default=0)),
                ("cached_prompt_price", models.PositiveBigIntegerField(blank=True, null=True)),
                ("completion_price", models.PositiveBigIntegerField(default=0)),
                ("reasoning_price", models.PositiveBigIntegerField(blank=True, null=True)),
                ("image_price", models.PositiveBigIntegerField(default=0)),
                ("archived_at", models.DateTimeField(blank=True, null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "team",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="models", to="apikeys.team"
                    ),
                ),
            ],
            options={
                "ordering": ["name"],
                "constraints": [
                    models.UniqueConstraint(fields=("team", "name"), name="model_name_once_a_team"),
                    models.UniqueConstraint(fields=("id", "team"), name="model_in_team"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Route",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("upstream_name", models.CharField(max_length=200)),
                ("priority", models.PositiveSmallIntegerField(default=1)),
                ("weight", models.PositiveSmallIntegerField(default=1)),
                ("tokens_field", models.CharField(blank=True, default="", max_length=30)),
                (
                    "model",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="routes",
                        to="chat.catalogmodel",
                    ),
                ),
                (
                    "provider",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="routes", to="chat.provider"
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        editable=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="apikeys.team",
                    ),
                ),
            ],
            options={
                "ordering": ["priority", "pk"],
                "constraints": [
                    models.UniqueConstraint(fields=("model", "provider", "upstream_name"), name="route_once_a_model")
                ],
            },
        ),
        migrations.CreateModel(
            name="Circuit",
            fields=[
                (
                    "route",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="circuit",
                        serialize=False,
                        to="chat.route",
                    ),
                ),
                ("open_until", models.DateTimeField()),
                ("failure", models.CharField(blank=True, max_length=1000)),
                ("opened_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        # Their values move to the catalog, and come back if this is undone.
        migrations.AlterField(
            "app",
            "provider",
            models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="apps", to="chat.provider"
            ),
        ),
        migrations.AlterField("app", "model", models.CharField(default="", max_length=200)),
        migrations.AddField(
            "app",
            "catalog_model",
            models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="apps", to="chat.catalogmodel"
            ),
        ),
    ]
