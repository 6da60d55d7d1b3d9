import apikeys.models
import apikeys.object_ids
import django.contrib.postgres.search
import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
import pgvector.django.vector
from pgvector.django import VectorExtension
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("apikeys", "0015_ends"),
        ("chat", "0006_labels"),
    ]

    operations = [
        VectorExtension(),
        migrations.CreateModel(
            name="Dataset",
            fields=[
                (
                    "id",
                    apikeys.models.ObjectIdField(
                        default=apikeys.object_ids.new_object_id,
                        editable=False,
                        max_length=24,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("name", models.CharField(max_length=100, verbose_name="name")),
                (
                    "intro",
                    models.CharField(
                        blank=True, help_text="What is in it, shown in lists.", max_length=500, verbose_name="intro"
                    ),
                ),
                (
                    "rerank_model",
                    models.CharField(
                        blank=True,
                        help_text="The model's name, as the provider spells it.",
                        max_length=200,
                        verbose_name="rerank model",
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False, verbose_name="created at"
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True, verbose_name="updated at")),
                (
                    "rerank_provider",
                    models.ForeignKey(
                        blank=True,
                        help_text="Orders what was found anew, where a search asks for it. It needs a rerank model as well.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="reranked_datasets",
                        to="chat.provider",
                        verbose_name="rerank provider",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="datasets",
                        to="apikeys.team",
                        verbose_name="team",
                    ),
                ),
            ],
            options={
                "verbose_name": "dataset",
                "verbose_name_plural": "datasets",
                "ordering": ["name", "pk"],
            },
        ),
        migrations.CreateModel(
            name="Collection",
            fields=[
                (
                    "id",
                    apikeys.models.ObjectIdField(
                        default=apikeys.object_ids.new_object_id,
                        editable=False,
                        max_length=24,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("folder", "folder"),
                            ("virtual", "made by hand"),
                            ("text", "text"),
                            ("file", "file"),
                            ("link", "link"),
                        ],
                        max_length=10,
                        verbose_name="kind",
                    ),
                ),
                ("name", models.CharField(max_length=200, verbose_name="name")),
                ("url", models.CharField(blank=True, help_text="Of a link.", max_length=2000, verbose_name="URL")),
                (
                    "chunk_size",
                    models.PositiveSmallIntegerField(
                        default=512,
                        help_text="The most tokens of a piece that its source is split into.",
                        validators=[
                            django.core.validators.MinValueValidator(32),
                            django.core.validators.MaxValueValidator(4096),
                        ],
                        verbose_name="chunk size",
                    ),
                ),
                ("metadata", models.JSONField(blank=True, default=dict, verbose_name="metadata")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("ready", "ready"),
                            ("waiting", "waiting"),
                            ("reading", "being read"),
                            ("failed", "failed"),
                        ],
                        default="ready",
                        max_length=10,
                        verbose_name="state",
                    ),
                ),
                (
                    "failure",
                    models.CharField(
                        blank=True, help_text="Why the import ended early.", max_length=500, verbose_name="failure"
                    ),
                ),
                ("repeated", models.PositiveIntegerField(default=0, verbose_name="repeated")),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False, verbose_name="created at"
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True, verbose_name="updated at")),
                (
                    "parent",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="children",
                        to="datasets.collection",
                        verbose_name="parent",
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
                        verbose_name="dataset",
                    ),
                ),
            ],
            options={
                "verbose_name": "collection",
                "verbose_name_plural": "collections",
                "ordering": ["-updated_at", "pk"],
            },
        ),
        migrations.CreateModel(
            name="Datum",
            fields=[
                (
                    "id",
                    apikeys.models.ObjectIdField(
                        default=apikeys.object_ids.new_object_id,
                        editable=False,
                        max_length=24,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                (
                    "chunk_index",
                    models.PositiveIntegerField(
                        default=0, help_text="Its place in the source.", verbose_name="chunk index"
                    ),
                ),
                ("q", models.TextField(verbose_name="question or text")),
                ("a", models.TextField(blank=True, verbose_name="answer")),
                ("digest", models.BinaryField(max_length=32, verbose_name="digest")),
                ("words", django.contrib.postgres.search.SearchVectorField(editable=False, verbose_name="words")),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False, verbose_name="created at"
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False, verbose_name="updated at"
                    ),
                ),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="data",
                        to="datasets.collection",
                        verbose_name="collection",
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
                        verbose_name="dataset",
                    ),
                ),
            ],
            options={
                "verbose_name": "datum",
                "verbose_name_plural": "data",
                "ordering": ["collection", "chunk_index", "pk"],
            },
        ),
        migrations.CreateModel(
            name="IndexText",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("is_default", models.BooleanField(verbose_name="is default")),
                ("text", models.TextField(verbose_name="text")),
                (
                    "dataset",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="datasets.dataset",
                        verbose_name="dataset",
                    ),
                ),
                (
                    "datum",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="index_texts",
                        to="datasets.datum",
                        verbose_name="datum",
                    ),
                ),
            ],
            options={
                "verbose_name": "index text",
                "verbose_name_plural": "index texts",
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="SourcePiece",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("ordinal", models.PositiveIntegerField(verbose_name="ordinal")),
                ("content", models.BinaryField(verbose_name="content")),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="source_pieces",
                        to="datasets.collection",
                        verbose_name="collection",
                    ),
                ),
            ],
            options={
                "verbose_name": "source piece",
                "verbose_name_plural": "source pieces",
                "ordering": ["ordinal"],
            },
        ),
        migrations.CreateModel(
            name="VectorSet",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "model",
                    models.CharField(
                        default="wordllama-256",
                        help_text="The model's name, as the provider spells it.",
                        max_length=200,
                        verbose_name="model",
                    ),
                ),
                (
                    "dimension",
                    models.PositiveSmallIntegerField(
                        editable=False,
                        help_text="Of the model's first vector; all have the same.",
                        null=True,
                        verbose_name="dimension",
                    ),
                ),
                ("is_current", models.BooleanField(verbose_name="is current")),
                ("failure", models.CharField(blank=True, max_length=500, verbose_name="failure")),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False, verbose_name="created at"
                    ),
                ),
                (
                    "dataset",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="vector_sets",
                        to="datasets.dataset",
                        verbose_name="dataset",
                    ),
                ),
                (
                    "provider",
                    models.ForeignKey(
                        blank=True,
                        help_text="Whose endpoint for embeddings makes the vectors. Empty: the static model of this server.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="vector_sets",
                        to="chat.provider",
                        verbose_name="provider",
                    ),
                ),
            ],
            options={
                "verbose_name": "vector set",
                "verbose_name_plural": "vector sets",
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="Vector",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("embedding", pgvector.django.vector.VectorField(verbose_name="embedding")),
                (
                    "index_text",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="vectors",
                        to="datasets.indextext",
                        verbose_name="index text",
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
                        verbose_name="vector set",
                    ),
                ),
            ],
            options={
                "verbose_name": "vector",
                "verbose_name_plural": "vectors",
                "ordering": ["pk"],
            },
        ),
        migrations.CreateModel(
            name="PendingVector",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="pending",
                        to="datasets.collection",
                        verbose_name="collection",
                    ),
                ),
                (
                    "index_text",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="pending",
                        to="datasets.indextext",
                        verbose_name="index text",
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
                        verbose_name="vector set",
                    ),
                ),
            ],
            options={
                "verbose_name": "pending vector",
                "verbose_name_plural": "pending vectors",
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
