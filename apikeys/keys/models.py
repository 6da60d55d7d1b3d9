"""Keys of teams, and the secrets of those keys."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.db import models, transaction
from django.db.models import Case, Exists, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce, Now
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from apikeys.audit import recording
from apikeys.keys import crypto
from apikeys.keys.kinds import AccessKind
from apikeys.teams import Membership, ObjectIdField, Team, TeamOwnedQuerySet

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MAXIMUM_OVERLAP = timedelta(days=30)
# Python's calendar ends with the year 9999: a year before, every time zone can still show the end of a key.
EARLIEST_END, END_BEFORE = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)

MAXIMUM_MODELS = 1_000
LISTS = ("allowed_networks", "allowed_endpoints", "allowed_models")
RIGHTS = ("can_name_app", *LISTS)
# The columns of a key that may change and that the hot path reads. A trigger tells every server process when one does.
POLICY_COLUMNS = ("name", "owner_id", "expires_at", *RIGHTS, "disabled_at", "revoked_at")


class KeyStateError(Exception):
    """The key's state does not allow what was asked. The message is for the person who asked."""


# Why a key does not work: the first reason that applies is given. Each stands for one of `conditions()`.
WHY_UNUSABLE = {
    "revoked": _("It was revoked."),
    "disabled": _("It is disabled."),
    "expired": _("It has expired."),
    "team": _("Its team is disabled."),
    "owner": _("Its owner is inactive."),
    "membership": _("Its owner has left the team."),
    "secret": _("It has no secret; rotate it to get one."),
}


def conditions() -> dict[str, Q]:
    """Return all that a key must meet to work, by the reason that WHY_UNUSABLE gives where it does not.

    Times are compared by the database's clock. The hot path's look-up asks the same of a single secret.
    """
    memberships = Membership.objects.filter(team=OuterRef("team"), user=OuterRef("owner"))
    secrets = KeySecret.objects.filter(key=OuterRef("pk"))
    return {
        "revoked": Q(revoked_at=None),
        "disabled": Q(disabled_at=None),
        "expired": Q(expires_at=None) | Q(expires_at__gt=Now()),
        "team": Q(team__disabled_at=None),
        "owner": Q(owner__is_active=True),
        "membership": Q(Exists(memberships)),
        "secret": Q(Exists(secrets.live())),
    }


def unusable_reason() -> Case:
    """Return the key of WHY_UNUSABLE that applies; NULL for a key that works."""
    unmet = [When(~condition, then=Value(reason)) for reason, condition in conditions().items()]
    return Case(*unmet, default=None, output_field=models.CharField())


class ApiKeyQuerySet(TeamOwnedQuerySet):
    def usable(self) -> ApiKeyQuerySet:
        rows: ApiKeyQuerySet = self.filter(*conditions().values())
        return rows

    def with_state(self) -> ApiKeyQuerySet:
        """Add all that `why_unusable`, `last_four` and a list's columns need, in one query for all rows."""
        secrets = KeySecret.objects.filter(key=OuterRef("pk"))
        rows: ApiKeyQuerySet = self.select_related("team", "app", "owner", "activity").annotate(
            unusable_reason=unusable_reason(),
            newest_last_four=Subquery(secrets.order_by("-pk").values("last_four")[:1]),
        )
        return rows


class ApiKeyManager(models.Manager.from_queryset(ApiKeyQuerySet)):  # type: ignore[misc]
    def create_key(
        self, *, team: Team, owner: User, name: str, app: Any = None, secret: str | None = None, **policy: Any
    ) -> tuple[ApiKey, str]:
        """Create a key and its first secret. Return both; the plaintext exists nowhere else.

        `secret` imports the plaintext of another system instead of making one.
        Raise ValidationError when the policy is not sound or the secret cannot be imported.
        """
        api_key = ApiKey(team=team, owner=owner, name=name, app=app, **policy)
        api_key.full_clean()
        if secret is not None:
            validate_foreign_secret(secret)
        plaintext = crypto.generate() if secret is None else secret
        with transaction.atomic():
            api_key.save(force_insert=True)
            KeySecret.objects.create_for(api_key, plaintext, is_imported=secret is not None)
        return api_key, plaintext


def validate_foreign_secret(secret: str) -> None:
    """Raise ValidationError, without the plaintext, unless callers could present it and it is still free."""
    credential = crypto.parse_credential(secret)
    if credential is None:
        raise ValidationError(
            {"secret": "An imported key has 16 to 250 characters: letters, digits, '_', '.' and '-'."}, code="invalid"
        )
    if credential.app_id is not None:
        raise ValidationError(
            {"secret": "It ends like a key that names an app ('-' and 24 hexadecimal digits), so it would be cut."},
            code="invalid",
        )
    # It is sought under every pepper: the unique index sees two digests of one plaintext as two plaintexts.
    digests = crypto.digests(secret, settings.API_KEY_PEPPERS).values()
    if KeySecret.objects.filter(digest__in=digests).exists():
        raise ValidationError({"secret": "It is in use already."}, code="unique")


def validate_network(value: str) -> None:
    if "%" in value:
        # Not repeated: an array's field would take the sign for a placeholder of its message.
        raise ValidationError(
            "A network in CIDR notation has no percent sign: callers are not identified by zones.", code="invalid"
        )
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        complaint = _("%(value)r is not a network in CIDR notation: %(error)s.")
        raise ValidationError(complaint, code="invalid", params={"value": value, "error": error}) from error


def validate_end(value: datetime) -> None:
    if not EARLIEST_END <= value < END_BEFORE:
        raise ValidationError(_("The expiry must be in the years 2000 to 9998 (UTC)."), code="out_of_range")


class ApiKey(models.Model):
    """One key: who it is and what it may do. Its secrets come and go; this row, its limits and its usage stay."""

    id = ObjectIdField()
    # Its index is the one of a team's list.
    team = models.ForeignKey(
        Team, verbose_name=_("team"), on_delete=models.PROTECT, db_index=False, related_name="api_keys"
    )
    app = models.ForeignKey(
        "chat.App",
        verbose_name=_("app"),
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="api_keys",
        help_text=_(
            "With an app this is an app key: it can talk to that app and do nothing else. Without one it is "
            "a global key: it manages what the team owns, but cannot talk to an app."
        ),
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("owner"),
        on_delete=models.PROTECT,
        related_name="api_keys",
        help_text=_("The team member who is responsible for this key. It stops working when they leave the team."),
    )
    name = models.CharField(
        _("name"), max_length=100, help_text=_("What the key is for, so that a person can recognize it.")
    )
    note = models.TextField(_("note"), blank=True, max_length=2000, validators=[MaxLengthValidator(2000)])
    expires_at = models.DateTimeField(
        _("expires at"),
        null=True,
        blank=True,
        validators=[validate_end],
        help_text=_("Empty means that the key never expires."),
    )
    can_name_app = models.BooleanField(
        _("may name an app"),
        default=False,
        help_text=_("Lets a global key talk to any app of its team by naming it in the request."),
    )
    allowed_networks = ArrayField(
        models.CharField(max_length=43, validators=[validate_network]),
        verbose_name=_("allowed networks"),
        default=list,
        blank=True,
        help_text=_("Networks in CIDR notation, such as 203.0.113.0/24 or 2001:db8::/32. Empty means anywhere."),
    )
    allowed_endpoints = ArrayField(
        models.CharField(max_length=100),
        verbose_name=_("allowed endpoints"),
        default=list,
        blank=True,
        help_text=_(
            "Names of endpoints, such as chat.completions. Empty means every endpoint that is open to this kind of key."
        ),
    )
    allowed_models = ArrayField(
        models.CharField(max_length=200),
        verbose_name=_("allowed models"),
        default=list,
        blank=True,
        help_text=_("Names of models that an app may use when this key calls it. Empty means all."),
    )
    disabled_at = models.DateTimeField(_("disabled at"), null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True, editable=False)
    revoked_by = models.CharField(_("revoked by"), max_length=150, blank=True, editable=False)
    revoked_reason = models.CharField(_("revoked reason"), max_length=500, blank=True, editable=False)
    revocation_acknowledged_at = models.DateTimeField(
        _("revocation acknowledged at"),
        null=True,
        editable=False,
        help_text=_("When the last server process acknowledged that it refuses the key."),
    )
    unacknowledged_servers = ArrayField(
        models.CharField(max_length=24),
        verbose_name=_("unacknowledged servers"),
        db_default=[],
        blank=True,
        editable=False,
        help_text=_("Server processes that had not acknowledged it when the wait ended."),
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects: ClassVar[ApiKeyManager] = ApiKeyManager()

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(app__isnull=True) | Q(can_name_app=False), name="apikey_app_key_names_no_app"
            ),
            # The composite foreign key (key, team) of a limit points at it.
            models.UniqueConstraint(fields=["id", "team"], name="apikey_in_team"),
        ]
        # Which keys expire soon is asked every hour.
        indexes = [
            models.Index(
                fields=["expires_at"],
                condition=Q(expires_at__isnull=False, revoked_at__isnull=True),
                name="apikey_by_end",
            ),
            models.Index(fields=["-created_at", "-id"], name="apikey_newest"),
            models.Index(fields=["team", "-created_at", "-id"], name="apikey_newest_of_team"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.team_id is None:
            return
        if self.app and self.app.team_id != self.team_id:
            raise ValidationError({"app": _("The app belongs to another team.")})
        if self.app_id and self.can_name_app:
            raise ValidationError(
                {"can_name_app": _("An app key talks to its own app; only a global key can name one.")}
            )
        if self.owner_id and not self.team.members.filter(pk=self.owner_id).exists():
            raise ValidationError({"owner": _("The owner must be a member of the team.")})

    @property
    def kind(self) -> AccessKind:
        if self.app_id:
            return AccessKind.APP
        return AccessKind.GLOBAL_NAMING_APP if self.can_name_app else AccessKind.GLOBAL

    @property
    def why_unusable(self) -> str | None:
        """Return why the key would be refused whoever calls; None exactly for those that are `usable()`."""
        state = ApiKey.objects.filter(pk=self.pk).values_list(unusable_reason(), flat=True)
        reason: str | None = self._annotated_or("unusable_reason", state.get)
        return None if reason is None else str(WHY_UNUSABLE[reason])

    @property
    def last_four(self) -> str:
        newest = self.secrets.order_by("-pk").values_list("last_four", flat=True)
        return str(self._annotated_or("newest_last_four", newest.first) or "")

    @property
    def newest_secret_id(self) -> int:
        # It is 0 when the key never had one.
        return self.secrets.order_by("-pk").values_list("pk", flat=True).first() or 0

    def model_names(self) -> list[str]:
        """Return the names of the catalog's models that the key can use, at most MAXIMUM_MODELS."""
        if self.app is not None:
            names = [self.app.model.name]
        else:
            models = self.team.models.filter(archived_at=None)
            # Chat is by apps alone.
            models = models if self.can_name_app else models.exclude(kind="chat")
            names = list(models.values_list("name", flat=True)[:MAXIMUM_MODELS])
        return [name for name in names if not self.allowed_models or name in self.allowed_models]

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        self._forget_annotations()
        super().refresh_from_db(*args, **kwargs)

    def _annotated_or(self, name: str, ask: Callable[[], Any]) -> Any:
        """Return what `with_state()` read; without it, what the database says now."""
        return self.__dict__[name] if name in self.__dict__ else ask()

    def _forget_annotations(self) -> None:
        for name in ("unusable_reason", "newest_last_four"):
            self.__dict__.pop(name, None)

    @transaction.atomic
    def rotate(self, overlap: timedelta = timedelta(0), *, replacing: int | None = None) -> str:
        """Add a secret and return its plaintext; the old one ends now, or after `overlap`.

        At most two secrets live at once: one that was in its own overlap ends now. `replacing` is the secret that
        the caller saw as the newest: if it no longer is, another call was faster, and nothing is rotated.
        Raise KeyStateError then, for a revoked key, and for an overlap out of range.
        """
        if not timedelta(0) <= overlap <= MAXIMUM_OVERLAP:
            raise KeyStateError(
                gettext("The overlap must be between 0 and %(days)s days.") % {"days": MAXIMUM_OVERLAP.days}
            )
        locked = ApiKey.objects.select_for_update().get(pk=self.pk)
        if locked.revoked_at:
            raise KeyStateError(gettext("A revoked key cannot be rotated. Create a new key."))
        if replacing is not None and locked.newest_secret_id != replacing:
            raise KeyStateError(
                gettext(
                    "The key was rotated in the meantime and its new secret was shown once. If it is lost, rotate it "
                    "again."
                )
            )
        now = timezone.now()
        live = list(self.secrets.live().order_by("-pk"))
        for secret in live[1:]:
            secret.end(now)
        for secret in live[:1]:
            secret.end(now + overlap)
        plaintext = crypto.generate()
        KeySecret.objects.create_for(self, plaintext)
        self._forget_annotations()
        return plaintext

    def disable(self) -> None:
        # Disabling twice keeps when it was first.
        self._change(disabled_at=Coalesce("disabled_at", timezone.now()))

    def enable(self) -> None:
        self._change(disabled_at=None)

    def set_end(self, expires_at: datetime | None) -> None:
        if expires_at is not None:
            validate_end(expires_at)
        self._change(expires_at=expires_at)

    def narrow(self, *, endpoints: list[str], networks: list[str]) -> None:
        self._change(allowed_endpoints=endpoints, allowed_networks=networks)

    def revoke(self, *, by: str, reason: str) -> None:
        # Revoking twice keeps who did it first.
        if not reason.strip():
            raise KeyStateError(gettext("Give a reason for revoking the key."))
        now = timezone.now()
        recording.update(
            ApiKey.objects.filter(pk=self.pk, revoked_at=None),
            revoked_at=now,
            revoked_by=by[:150],
            revoked_reason=reason.strip()[:500],
        )
        self.refresh_from_db()

    def _change(self, **columns: Any) -> None:
        """Change columns unless the key is revoked, with its row locked, so that no revocation can slip between."""
        if not recording.update(ApiKey.objects.filter(pk=self.pk, revoked_at=None), **columns):
            raise KeyStateError(gettext("A revoked key cannot be changed. Create a new key."))
        self.refresh_from_db()


class KeySecretQuerySet(models.QuerySet["KeySecret"]):
    def live(self) -> KeySecretQuerySet:
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=Now()))


class KeySecretManager(models.Manager.from_queryset(KeySecretQuerySet)):  # type: ignore[misc]
    def create_for(self, api_key: ApiKey, plaintext: str, *, is_imported: bool = False) -> KeySecret:
        pepper_id, pepper = next(iter(settings.API_KEY_PEPPERS.items()))
        secret: KeySecret = self.create(
            key=api_key,
            digest=crypto.digest(plaintext, pepper),
            pepper_id=pepper_id,
            last_four=crypto.last_four(plaintext),
            is_imported=is_imported,
        )
        return secret


class KeySecret(models.Model):
    """One credential of a key: the keyed digest of a plaintext that is stored nowhere."""

    key = models.ForeignKey(ApiKey, verbose_name=_("key"), on_delete=models.PROTECT, related_name="secrets")
    digest = models.BinaryField(_("digest"), unique=True, max_length=32)
    pepper_id = models.CharField(_("pepper ID"), max_length=20)
    last_four = models.CharField(_("last four"), max_length=4)
    is_imported = models.BooleanField(_("is imported"), default=False)
    expires_at = models.DateTimeField(
        _("expires at"), null=True, help_text=_("When the overlap after a rotation ends.")
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects: ClassVar[KeySecretManager] = KeySecretManager()

    class Meta:
        verbose_name = _("secret")
        verbose_name_plural = _("secrets")
        constraints = [
            models.UniqueConstraint(fields=["key"], condition=Q(expires_at=None), name="keysecret_one_current"),
        ]
        indexes = [models.Index(fields=["last_four"], name="keysecret_last_four")]

    def __str__(self) -> str:
        return f"******{self.last_four}"

    def end(self, when: datetime) -> None:
        if self.expires_at is None or when < self.expires_at:
            self.expires_at = when
            self.save(update_fields=["expires_at"])


def live_secret_counts(pepper_ids: Sequence[str]) -> dict[str, int]:
    """Count secrets that could still be presented, by the pepper that signed them; 0 for a pepper that signed none."""
    counts = dict.fromkeys(pepper_ids, 0)
    presentable = KeySecret.objects.live().filter(key__revoked_at=None)
    for row in presentable.values("pepper_id").annotate(count=models.Count("pk")):
        counts[row["pepper_id"]] = row["count"]
    return counts
