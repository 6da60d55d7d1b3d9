"""Teams, the tenants: each owns its keys, apps, providers and datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from apikeys.object_ids import new_object_id

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class ObjectIdField(models.CharField):  # type: ignore[type-arg]
    """A primary key of 24 hexadecimal characters, made by this server."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs |= {"max_length": 24, "primary_key": True, "default": new_object_id, "editable": False}
        kwargs.setdefault("verbose_name", _("ID"))
        super().__init__(**kwargs)


def unconstrained_key(
    to: Any, label: Any, *, related_name: str = "+", db_index: bool = False, **options: Any
) -> models.ForeignKey[Any, Any]:
    """Return a foreign key that Django neither declares to the database nor follows when a row is removed.

    For rows that outlive what they point at or are removed with it by SQL, and for those that are written with every
    request: a constraint would lock the row that they point at. Most are found by an index on several columns, so
    one of its own has to be asked for.
    """
    return models.ForeignKey(
        to,
        verbose_name=label,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=db_index,
        related_name=related_name,
        **options,
    )


class TeamQuerySet(models.QuerySet["Team"]):
    def for_user(self, user: User) -> TeamQuerySet:
        return self if user.is_superuser else self.filter(members=user)


class Team(models.Model):
    """A tenant, which alone owns its keys, apps, providers and everything in them."""

    id = ObjectIdField()
    name = models.CharField(_("name"), max_length=100, unique=True)
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, verbose_name=_("members"), through="Membership", related_name="teams", blank=True
    )
    disabled_at = models.DateTimeField(
        _("disabled at"), null=True, blank=True, help_text=_("While this is set, no key of the team is accepted.")
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects: ClassVar[Any] = TeamQuerySet.as_manager()

    class Meta:
        verbose_name = _("team")
        verbose_name_plural = _("teams")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """One user belongs to one team. A key stops working when its owner's membership ends."""

    team = models.ForeignKey(Team, verbose_name=_("team"), on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, verbose_name=_("user"), on_delete=models.CASCADE)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    class Meta:
        verbose_name = _("membership")
        verbose_name_plural = _("memberships")
        constraints = [models.UniqueConstraint(fields=["team", "user"], name="membership_once")]

    def __str__(self) -> str:
        return gettext("%(user)s in %(team)s") % {"user": self.user, "team": self.team}


class TeamOwnedQuerySet(models.QuerySet[Any]):
    """Rows that belong to one team. Every query of the API and the admin starts at one of these."""

    def for_team(self, team_id: str) -> TeamOwnedQuerySet:
        return self.filter(team_id=team_id)

    def for_user(self, user: User) -> TeamOwnedQuerySet:
        return self if user.is_superuser else self.filter(team__members=user)
