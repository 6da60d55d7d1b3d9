"""Limits of keys and teams, and the counters of what counts against them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from apikeys.accounting.periods import Measure, Period, period_start, validate_time_zone
from apikeys.keys.models import ApiKey
from apikeys.teams import Team, TeamOwnedQuerySet

# From here on the bits of a counter's `alerted` say that 80 % were reached, or a soft amount.
ALERTED_AT_80 = 2
# Every client reads an integer up to here exactly.
MAXIMUM_AMOUNT = 2**53


class LimitUsage(NamedTuple):
    """The amounts that count against a limit at this moment. `since` is None for what has no beginning."""

    used: int
    reserved: int
    since: datetime | None


class Limit(models.Model):
    """So much of one measure in one period, for a key, or for a whole team. All limits of both apply."""

    team = models.ForeignKey(Team, verbose_name=_("team"), on_delete=models.CASCADE, related_name="limits")
    key = models.ForeignKey(
        ApiKey,
        verbose_name=_("key"),
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="limits",
        help_text=_("Empty: all keys of the team combined."),
    )
    measure = models.CharField(_("measure"), max_length=12, choices=Measure.choices)
    period = models.CharField(_("period"), max_length=6, choices=Period.choices)
    amount = models.PositiveBigIntegerField(
        _("amount"),
        validators=[MinValueValidator(0), MaxValueValidator(MAXIMUM_AMOUNT)],
        help_text=_("A request that would exceed it is refused. 0 refuses every request. Points are in millionths."),
    )
    soft_amount = models.PositiveBigIntegerField(
        _("soft amount"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAXIMUM_AMOUNT)],
        help_text=_("Reaching it raises an alert but refuses nothing. Empty: alerts at 50, 80 and 100 percent only."),
    )
    time_zone = models.CharField(
        _("time zone"),
        max_length=64,
        default="UTC",
        validators=[validate_time_zone],
        help_text=_("Days begin at midnight in this time zone."),
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects: ClassVar[Any] = TeamOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(measure="open", period="now") | (~Q(measure="open") & ~Q(period="now")),
                name="limit_open_requests_are_counted_now",
            ),
            models.CheckConstraint(condition=Q(amount__lte=MAXIMUM_AMOUNT), name="limit_amount_is_exact"),
            # A rate has no alerts: it would raise one a minute.
            models.CheckConstraint(
                condition=Q(soft_amount=None) | ~Q(period__in=["now", "minute"]),
                name="limit_soft_amount_is_of_a_budget",
            ),
        ]
        indexes = [
            # A team's own limits are looked for at every request, among those of all its keys.
            models.Index(fields=["team"], condition=Q(key=None), name="limit_of_team"),
        ]

    def __str__(self) -> str:
        soft = ""
        if self.soft_amount is not None:
            soft = gettext(", alert at %(amount)s") % {"amount": self.amount_text(self.soft_amount)}
        return f"{self.amount_text(self.amount)} {Measure(self.measure).unit} {self.get_period_display()}{soft}"

    def amount_text(self, amount: int) -> str:
        return Measure(self.measure).text(amount)

    def clean(self) -> None:
        if self.measure and self.period and (self.measure == Measure.OPEN) != (self.period == Period.NOW):
            raise ValidationError({"period": _("Concurrent requests are counted at any moment, and nothing else is.")})
        if self.key is not None and self.team_id != self.key.team_id:
            raise ValidationError({"key": _("The key belongs to another team.")})
        if self.soft_amount is not None:
            if self.period in (Period.NOW, Period.MINUTE):
                raise ValidationError(
                    {"soft_amount": _("Only budgets can have one: a rate limit would raise an alert every minute.")}
                )
            if self.amount is not None and self.soft_amount > self.amount:
                raise ValidationError({"soft_amount": _("It is above the amount, so it would never be reached.")})

    def current_usage(self) -> LimitUsage:
        # Nothing of a period that has passed counts, though its counter still stands in it.
        begun = period_start(self.period, self.time_zone, timezone.now())
        counter = self.counter
        if begun is None:
            return LimitUsage(counter.used, counter.reserved, None)
        if counter.period_start < begun:
            return LimitUsage(0, 0, begun)
        return LimitUsage(counter.used, counter.reserved, counter.period_start)

    @property
    def left(self) -> int:
        usage = self.current_usage()
        return max(0, self.amount - usage.used - usage.reserved)

    def state(self) -> dict[str, Any]:
        """Return what it allows and what is left, for its holder and operators. Points are in millionths."""
        used, reserved, since = self.current_usage()
        return {
            "measure": self.measure,
            "period": self.period,
            "timeZone": self.time_zone,
            "amount": self.amount,
            "softAmount": self.soft_amount,
            "used": used,
            "reserved": reserved,
            "left": self.left,
            "since": None if since is None else since.isoformat(),
        }


def limits_of(team_id: str, key_id: str) -> QuerySet[Limit]:
    """Return the limits that apply to a key, with their counters: its own, and those of its team."""
    of_team: QuerySet[Limit] = Limit.objects.for_team(team_id)
    return of_team.filter(Q(key=None) | Q(key=key_id)).select_related("counter")


class Counter(models.Model):
    """The usage of one limit in its current period. Only the database's own functions change it."""

    limit = models.OneToOneField(
        Limit, verbose_name=_("limit"), on_delete=models.CASCADE, primary_key=True, related_name="counter"
    )
    period_start = models.DateTimeField(_("period start"))
    used = models.BigIntegerField(_("used"), default=0)
    reserved = models.BigIntegerField(_("reserved"), default=0)
    # The bits say which alerts of this period were raised: 1, 2 and 4 for 50, 80 and 100 %, 8 for the soft amount.
    alerted = models.PositiveSmallIntegerField(_("alerted"), db_default=0)

    class Meta:
        verbose_name = _("counter")
        verbose_name_plural = _("counters")
        # Pages look through all budgets for those used up that far; the column is hardly ever written to.
        indexes = [models.Index(fields=["limit"], condition=Q(alerted__gte=ALERTED_AT_80), name="counter_alerted")]

    def __str__(self) -> str:
        values = {"used": self.used, "reserved": self.reserved, "moment": f"{self.period_start:%Y-%m-%d %H:%M %Z}"}
        return gettext("%(used)s used and %(reserved)s reserved since %(moment)s") % values
