import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("apikeys", "0001_initial"),
        ("chat", "0001_initial"),
        ("datasets", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="appdataset",
            name="dataset",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="datasets.dataset"
            ),
        ),
        migrations.AddField(
            model_name="appdataset",
            name="team",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.team",
            ),
        ),
        migrations.AddField(
            model_name="app",
            name="datasets",
            field=models.ManyToManyField(
                blank=True, related_name="apps", through="chat.AppDataset", to="datasets.dataset"
            ),
        ),
        migrations.AddField(
            model_name="conversation",
            name="app",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="conversations", to="chat.app"
            ),
        ),
        migrations.AddField(
            model_name="message",
            name="conversation",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="messages", to="chat.conversation"
            ),
        ),
        migrations.AddField(
            model_name="provider",
            name="team",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="providers", to="apikeys.team"
            ),
        ),
        migrations.AddField(
            model_name="price",
            name="provider",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="prices", to="chat.provider"
            ),
        ),
        migrations.AddField(
            model_name="app",
            name="provider",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="apps", to="chat.provider"
            ),
        ),
        migrations.AddConstraint(
            model_name="appdataset",
            constraint=models.UniqueConstraint(fields=("app", "dataset"), name="dataset_once_an_app"),
        ),
        migrations.AddConstraint(
            model_name="conversation",
            constraint=models.UniqueConstraint(fields=("app", "chat_id"), name="conversation_chat_id_once_an_app"),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(fields=["conversation", "-id"], name="message_latest"),
        ),
        migrations.AddConstraint(
            model_name="message",
            constraint=models.UniqueConstraint(fields=("conversation", "data_id"), name="message_data_id_once_a_chat"),
        ),
        migrations.AddConstraint(
            model_name="provider",
            constraint=models.UniqueConstraint(fields=("team", "name"), name="provider_name_once_a_team"),
        ),
        migrations.AddConstraint(
            model_name="provider",
            constraint=models.UniqueConstraint(fields=("id", "team"), name="provider_in_team"),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.UniqueConstraint(fields=("provider", "model"), name="price_once_a_model"),
        ),
        migrations.AddConstraint(
            model_name="app",
            constraint=models.UniqueConstraint(fields=("id", "team"), name="app_in_team"),
        ),
    ]
