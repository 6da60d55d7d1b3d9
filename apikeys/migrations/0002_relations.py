import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("apikeys", "0001_initial"),
        ("chat", "0002_relations"),
        ("contenttypes", "0002_remove_content_type_name"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="app",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="api_keys",
                to="chat.app",
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="owner",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="api_keys", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="alert",
            name="key",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.CASCADE, related_name="alerts", to="apikeys.apikey"
            ),
        ),
        migrations.AddField(
            model_name="auditentry",
            name="actor",
            field=models.ForeignKey(
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="auditentry",
            name="content_type",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="+", to="contenttypes.contenttype"
            ),
        ),
        migrations.CreateModel(
            name="Counter",
            fields=[
                (
                    "limit",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="counter",
                        serialize=False,
                        to="apikeys.limit",
                    ),
                ),
                ("period_start", models.DateTimeField()),
                ("used", models.BigIntegerField(default=0)),
                ("reserved", models.BigIntegerField(default=0)),
                ("alerted", models.PositiveSmallIntegerField(db_default=0)),
            ],
        ),
        migrations.AddField(
            model_name="limit",
            name="key",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="limits",
                to="apikeys.apikey",
            ),
        ),
        migrations.AddField(
            model_name="dailyusage",
            name="app",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="chat.app",
            ),
        ),
        migrations.AddField(
            model_name="dailyusage",
            name="key",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="daily_usage",
                to="apikeys.apikey",
            ),
        ),
        migrations.AddField(
            model_name="delivery",
            name="alert",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="deliveries", to="apikeys.alert"
            ),
        ),
        migrations.AddField(
            model_name="hourlyrefusals",
            name="key",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.apikey",
            ),
        ),
        migrations.AddField(
            model_name="hourlyusage",
            name="app",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="chat.app",
            ),
        ),
        migrations.AddField(
            model_name="hourlyusage",
            name="key",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.apikey",
            ),
        ),
        migrations.CreateModel(
            name="SecretReuse",
            fields=[
                (
                    "secret",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="reuse",
                        serialize=False,
                        to="apikeys.keysecret",
                    ),
                ),
                ("count", models.PositiveBigIntegerField()),
                ("first_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("last_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("last_from", models.GenericIPAddressField(null=True)),
            ],
        ),
        migrations.AddField(
            model_name="keysecret",
            name="key",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="secrets", to="apikeys.apikey"
            ),
        ),
        migrations.AddField(
            model_name="leader",
            name="board",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="leaders",
                to="apikeys.leaderboard",
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="user",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name="refusal",
            name="key",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="refusals",
                to="apikeys.apikey",
            ),
        ),
        migrations.AddField(
            model_name="reservation",
            name="app",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="chat.app",
            ),
        ),
        migrations.AddField(
            model_name="reservation",
            name="key",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.apikey",
            ),
        ),
        migrations.AddConstraint(
            model_name="rollupwatermark",
            constraint=models.CheckConstraint(condition=models.Q(("id", 1)), name="rolled_up_once"),
        ),
        migrations.AddField(
            model_name="team",
            name="members",
            field=models.ManyToManyField(
                blank=True, related_name="teams", through="apikeys.Membership", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="reservation",
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
            model_name="refusal",
            name="team",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.team",
            ),
        ),
        migrations.AddField(
            model_name="membership",
            name="team",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="apikeys.team"),
        ),
        migrations.AddField(
            model_name="limit",
            name="team",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="limits", to="apikeys.team"
            ),
        ),
        migrations.AddField(
            model_name="leader",
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
            model_name="hourlyusage",
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
            model_name="hourlytotal",
            name="team",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.team",
            ),
        ),
        migrations.AddField(
            model_name="hourlyrefusals",
            name="team",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.team",
            ),
        ),
        migrations.AddField(
            model_name="dailyusage",
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
            model_name="auditentry",
            name="team",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="apikeys.team",
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="team",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="api_keys", to="apikeys.team"
            ),
        ),
        migrations.AddField(
            model_name="alert",
            name="team",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="alerts", to="apikeys.team"
            ),
        ),
        migrations.AddField(
            model_name="usagerecord",
            name="app",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="chat.app",
            ),
        ),
        migrations.AddField(
            model_name="usagerecord",
            name="key",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="usage",
                to="apikeys.apikey",
            ),
        ),
        migrations.AddField(
            model_name="usagerecord",
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
            model_name="webhook",
            name="team",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.CASCADE, related_name="webhook", to="apikeys.team"
            ),
        ),
        migrations.AddIndex(
            model_name="counter",
            index=models.Index(condition=models.Q(("alerted__gte", 2)), fields=["limit"], name="counter_alerted"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("delivered_at", None), ("given_up_at", None)), fields=["id"], name="delivery_open"
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("given_up_at__isnull", False)), fields=["alert"], name="delivery_given_up"
            ),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.UniqueConstraint(fields=("alert", "channel"), name="delivery_once_a_channel"),
        ),
        migrations.AddIndex(
            model_name="keysecret",
            index=models.Index(fields=["last_four"], name="keysecret_last_four"),
        ),
        migrations.AddConstraint(
            model_name="keysecret",
            constraint=models.UniqueConstraint(
                condition=models.Q(("expires_at", None)), fields=("key",), name="keysecret_one_current"
            ),
        ),
        migrations.AddIndex(
            model_name="reservation",
            index=models.Index(fields=["server_id"], name="reservation_by_server"),
        ),
        migrations.AddIndex(
            model_name="refusal",
            index=models.Index(fields=["key", "-created_at"], name="refusal_by_key"),
        ),
        migrations.AddIndex(
            model_name="refusal",
            index=models.Index(fields=["team", "-created_at"], name="refusal_by_team"),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.UniqueConstraint(fields=("team", "user"), name="membership_once"),
        ),
        migrations.AddIndex(
            model_name="limit",
            index=models.Index(condition=models.Q(("key", None)), fields=["team"], name="limit_of_team"),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("measure", "open"), ("period", "now")),
                    models.Q(models.Q(("measure", "open"), _negated=True), models.Q(("period", "now"), _negated=True)),
                    _connector="OR",
                ),
                name="limit_open_requests_are_counted_now",
            ),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount__lte", 9007199254740992)), name="limit_amount_is_exact"
            ),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("soft_amount", None), models.Q(("period__in", ["now", "minute"]), _negated=True), _connector="OR"
                ),
                name="limit_soft_amount_is_of_a_budget",
            ),
        ),
        migrations.AddIndex(
            model_name="leader",
            index=models.Index(fields=["board", "team"], name="leader_by_team"),
        ),
        migrations.AddIndex(
            model_name="leader",
            index=models.Index(condition=models.Q(("is_of_all", True)), fields=["board"], name="leader_of_all"),
        ),
        migrations.AddIndex(
            model_name="hourlyusage",
            index=models.Index(fields=["team", "hour"], name="hourly_usage_by_team"),
        ),
        migrations.AddIndex(
            model_name="hourlyusage",
            index=models.Index(fields=["key", "hour"], name="hourly_usage_by_key"),
        ),
        migrations.AddIndex(
            model_name="hourlytotal",
            index=models.Index(fields=["team", "hour"], name="hourly_total_by_team"),
        ),
        migrations.AddIndex(
            model_name="hourlyrefusals",
            index=models.Index(fields=["key", "hour"], name="hourly_refusals_by_key"),
        ),
        migrations.AddIndex(
            model_name="dailyusage",
            index=models.Index(fields=["team", "day"], name="daily_usage_by_team"),
        ),
        migrations.AddIndex(
            model_name="dailyusage",
            index=models.Index(fields=["key", "day"], name="daily_usage_by_key"),
        ),
        migrations.AddConstraint(
            model_name="dailyusage",
            constraint=models.UniqueConstraint(
                models.F("day"),
                models.F("team"),
                models.F("key"),
                django.db.models.functions.comparison.Coalesce(
                    "app", models.Value(""), output_field=models.CharField()
                ),
                models.F("endpoint"),
                models.F("model"),
                models.F("outcome"),
                models.F("token_source"),
                name="daily_usage_once",
            ),
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=["team", "-id"], name="audit_newest_of_team"),
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(
                condition=models.Q(("expires_at__isnull", False), ("revoked_at__isnull", True)),
                fields=["expires_at"],
                name="apikey_by_end",
            ),
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(fields=["-created_at", "-id"], name="apikey_newest"),
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(fields=["team", "-created_at", "-id"], name="apikey_newest_of_team"),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(("app__isnull", True), ("can_name_app", False), _connector="OR"),
                name="apikey_app_key_names_no_app",
            ),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.UniqueConstraint(fields=("id", "team"), name="apikey_in_team"),
        ),
        migrations.AddIndex(
            model_name="alert",
            index=models.Index(condition=models.Q(("delivered_at", None)), fields=["id"], name="alert_open"),
        ),
        migrations.AddIndex(
            model_name="usagerecord",
            index=models.Index(fields=["key", "-created_at"], name="usage_by_key"),
        ),
        migrations.AddIndex(
            model_name="usagerecord",
            index=models.Index(fields=["team", "-created_at"], name="usage_by_team"),
        ),
        migrations.AddIndex(
            model_name="usagerecord",
            index=models.Index(fields=["app", "-created_at"], name="usage_by_app"),
        ),
        migrations.AddIndex(
            model_name="usagerecord",
            index=models.Index(
                condition=models.Q(("outcome", "complete"), _negated=True),
                fields=["outcome", "-id"],
                name="usage_not_complete",
            ),
        ),
    ]
