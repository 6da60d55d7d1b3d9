import apikeys.object_ids
import apikeys.teams
import django.contrib.postgres.search
import django.db.models.deletion
import django.db.models.functions.datetime
import pgvector.django.vector
from django.db import migrations, models
from pgvector.django import VectorExtension


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("apikeys", "0001_initial"),
        ("chat", "0001_initial"),
    ]

    operations = [
        VectorExtension(),
        migrations.CreateModel(
            name="Dataset",
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
                ("rerank_model", models.CharField(blank=True, max_length=200)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "rerank_provider",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="reranked_datasets",
                        to="chat.provider",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="datasets", to="apikeys.team"
                    ),
                ),
            ],
            options={
                "ordering": ["name", "pk"],
            },
        ),
        migrations.CreateModel(
            name="Collection",
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
                ("kind", models.CharField(max_length=10)),
                ("name", models.CharField(max_length=200)),
                ("url", models.CharField(blank=True, max_length=2000)),
                ("chunk_size", models.PositiveSmallIntegerField(default=512)),
                ("metadata", models.JSONField(blank=True, default=dict)),
                ("state", models.CharField(default="ready", max_length=10)),
                ("failure", models.CharField(blank=True, max_length=500)),
                ("source_format", models.CharField(blank=True, editable=False, max_length=10)),
                ("chunks_read", models.PositiveIntegerField(default=0, editable=False)),
                ("repeated", models.PositiveIntegerField(default=0)),
                ("left_out", models.PositiveIntegerField(default=0, editable=False)),
                ("attempts", models.PositiveSmallIntegerField(default=0, editable=False)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "parent",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="children",
                        to="datasets.collection",
                    ),
                ),
                (
                    "dataset",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="collections",
                        to="datasets.dataset",
                    ),
                ),
            ],
            options={
                "ordering": ["-updated_at", "pk"],
            },
        ),
        migrations.CreateModel(
            name="Datum",
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
                ("chunk_index", models.PositiveIntegerField(default=0)),
                ("q", models.TextField()),
                ("a", models.TextField(blank=True)),
                ("digest", models.BinaryField(max_length=32)),
                ("words", django.contrib.postgres.search.SearchVectorField(editable=False)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "updated_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="data",
                        to="datasets.collection",
                    ),
                ),
                (
                    "dataset",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="data",
                        to="datasets.dataset",
                    ),
                ),
            ],
            options={
                "ordering": ["collection", "chunk_index", "pk"],
            },
        ),
        migrations.CreateModel(
            name="IndexText",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("is_default", models.BooleanField()),
                ("text", models.TextField()),
                (
                    "dataset",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="datasets.dataset",
                    ),
                ),
                (
                    "datum",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="index_texts",
                        to="datasets.datum",
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="SourcePiece",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("ordinal", models.PositiveIntegerField()),
                ("content", models.BinaryField()),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="source_pieces",
                        to="datasets.collection",
                    ),
                ),
            ],
            options={
                "ordering": ["ordinal"],
            },
        ),
        migrations.CreateModel(
            name="VectorSet",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("model", models.CharField(default="wordllama-256", max_length=200)),
                ("dimension", models.PositiveSmallIntegerField(editable=False, null=True)),
                ("is_current", models.BooleanField()),
                ("failure", models.CharField(blank=True, max_length=500)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "dataset",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="vector_sets",
                        to="datasets.dataset",
                    ),
                ),
                (
                    "provider",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="vector_sets",
                        to="chat.provider",
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="Vector",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("embedding", pgvector.django.vector.VectorField()),
                (
                    "index_text",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="vectors",
                        to="datasets.indextext",
                    ),
                ),
                (
                    "vector_set",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="vectors",
                        to="datasets.vectorset",
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="PendingVector",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("attempts", models.PositiveSmallIntegerField(db_default=0, editable=False)),
                ("failure", models.CharField(blank=True, db_default="", editable=False, max_length=500)),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="pending",
                        to="datasets.collection",
                    ),
                ),
                (
                    "index_text",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="pending",
                        to="datasets.indextext",
                    ),
                ),
                (
                    "vector_set",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="pending",
                        to="datasets.vectorset",
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.AddIndex(
            model_name="dataset",
            index=models.Index(fields=["team", "name"], name="dataset_by_name"),
        ),
        migrations.AddConstraint(
            model_name="dataset",
            constraint=models.UniqueConstraint(fields=("id", "team"), name="dataset_in_team"),
        ),
        migrations.AddIndex(
            model_name="collection",
            index=models.Index(fields=["dataset", "parent", "-updated_at"], name="collection_latest"),
        ),
        migrations.AddConstraint(
            model_name="collection",
            constraint=models.UniqueConstraint(fields=("id", "dataset"), name="collection_in_dataset"),
        ),
        migrations.AddIndex(
            model_name="datum",
            index=models.Index(fields=["collection", "chunk_index", "id"], name="datum_in_order"),
        ),
        migrations.AddConstraint(
            model_name="datum",
            constraint=models.UniqueConstraint(fields=("collection", "digest"), name="datum_once_a_collection"),
        ),
        migrations.AddConstraint(
            model_name="datum",
            constraint=models.UniqueConstraint(fields=("id", "dataset"), name="datum_in_dataset"),
        ),
        migrations.AddConstraint(
            model_name="sourcepiece",
            constraint=models.UniqueConstraint(fields=("collection", "ordinal"), name="source_piece_once"),
        ),
        migrations.AddConstraint(
            model_name="vectorset",
            constraint=models.UniqueConstraint(fields=("dataset", "is_current"), name="vector_set_once_a_dataset"),
        ),
        migrations.AddConstraint(
            model_name="vector",
            constraint=models.UniqueConstraint(fields=("vector_set", "index_text"), name="vector_once"),
        ),
        migrations.AddConstraint(
            model_name="pendingvector",
            constraint=models.UniqueConstraint(fields=("vector_set", "index_text"), name="pending_vector_once"),
        ),
    ]
