"""Deliveries of alerts: one row for each channel, tried until it is delivered or given up."""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Awaitable, Callable
from email.utils import parseaddr
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import models, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override
from procrastinate.contrib.django.models import ProcrastinateJob

from apikeys.alerts import messages
from apikeys.alerts.models import Alert
from apikeys.alerts.webhooks import Webhook, WebhookError
from apikeys.audit import history_messages
from apikeys.teams import ObjectIdField

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 8
# One look takes on so many alerts.
BATCH = 500


class DeliveryFailed(Exception):
    """An attempt failed, and another may succeed. The message holds no address."""


class NoRecipients(Exception):
    """No further attempt will succeed."""


class Channel(models.TextChoices):
    MAIL = "mail", _("mail")
    WEBHOOK = "webhook", _("webhook")


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def open(self) -> DeliveryQuerySet:
        return self.filter(delivered_at=None, given_up_at=None)


class Delivery(models.Model):
    """One alert on one channel, delivered at least once: a process killed before this row is written delivers again."""

    # It goes with every attempt, so that a receiver can drop what it has already.
    id = ObjectIdField()
    alert = models.ForeignKey(Alert, verbose_name=_("alert"), on_delete=models.CASCADE, related_name="deliveries")
    channel = models.CharField(_("channel"), max_length=10, choices=Channel.choices)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    delivered_at = models.DateTimeField(_("delivered at"), null=True)
    given_up_at = models.DateTimeField(_("given up at"), null=True)
    last_error = models.CharField(_("last error"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["alert", "channel"], name="delivery_once_a_channel")]
        indexes = [
            models.Index(fields=["id"], condition=Q(delivered_at=None, given_up_at=None), name="delivery_open"),
            models.Index(fields=["alert"], condition=Q(given_up_at__isnull=False), name="delivery_given_up"),
        ]

    def __str__(self) -> str:
        return f"{self.channel} {self.pk}"

    def succeed(self) -> None:
        self._end(delivered_at=timezone.now(), last_error="")
        self._note_on_webhook(last_success_at=timezone.now())

    def fail(self, why: str) -> None:
        self._note_on_webhook(last_failure_at=timezone.now(), last_failure=why)
        if self.attempts >= MAX_ATTEMPTS:
            self.give_up(why)
            return
        logger.warning("delivery %s, attempt %d: %s", self, self.attempts, why)
        self.last_error = why
        self.save(update_fields=["last_error"])

    def give_up(self, why: str) -> None:
        logger.error("delivery %s is given up after attempt %d: %s", self, self.attempts, why)
        self._end(given_up_at=timezone.now(), last_error=why)

    def _end(self, **columns: Any) -> None:
        """End this delivery, and the alert with the last of its deliveries."""
        with transaction.atomic():
            # Two deliveries that end at once take turns, so that the second sees that it is the last.
            alert = Alert.objects.select_for_update().get(pk=self.alert_id)
            Delivery.objects.filter(pk=self.pk).update(**columns)
            for name, value in columns.items():
                setattr(self, name, value)
            if not Delivery.objects.open().filter(alert=alert).exists():
                alert.delivered_at = timezone.now()
                alert.save(update_fields=["delivered_at"])

    def _note_on_webhook(self, **columns: Any) -> None:
        if self.channel == Channel.WEBHOOK:
            Webhook.objects.for_team(self.alert.team_id).update(**columns)


def undelivered_alerts(alerts: models.QuerySet[Any]) -> models.QuerySet[Any]:
    return alerts.filter(Exists(Delivery.objects.filter(alert=OuterRef("pk"), given_up_at__isnull=False)))


def prepare() -> list[str]:
    """Give every open alert its deliveries. Return the ids of all open deliveries that no job has in hand.

    Whatever was interrupted between the two is found again the next time.
    """
    unseen = Alert.objects.filter(~Exists(Delivery.objects.filter(alert=OuterRef("pk"))), delivered_at=None)
    for alert in unseen.select_related("team__webhook").order_by("pk")[:BATCH]:
        channels = _channels(alert)
        if channels:
            Delivery.objects.bulk_create(
                [Delivery(alert=alert, channel=channel) for channel in channels], ignore_conflicts=True
            )
        else:
            Alert.objects.filter(pk=alert.pk).update(delivered_at=timezone.now())
    without_job = Delivery.objects.open().filter(~Exists(ProcrastinateJob.objects.filter(lock=OuterRef("pk"))))
    return list(without_job.values_list("pk", flat=True)[:BATCH])


def _channels(alert: Alert) -> list[Channel]:
    webhook = getattr(alert.team, "webhook", None)
    return [
        *([Channel.MAIL] if settings.HAS_MAIL else []),
        *([Channel.WEBHOOK] if webhook is not None and webhook.disabled_at is None else []),
    ]


async def attempt(delivery_id: str) -> None:
    """Deliver once, unless it was delivered or given up before. Raise DeliveryFailed when another try is due."""
    delivery = await sync_to_async(_begin)(delivery_id)
    if delivery is None:
        return
    try:
        await DELIVER[Channel(delivery.channel)](delivery)
    except NoRecipients as error:
        await sync_to_async(delivery.give_up)(str(error))
    except DeliveryFailed as error:
        await sync_to_async(delivery.fail)(str(error))
        if delivery.given_up_at is None:
            raise
    else:
        await sync_to_async(delivery.succeed)()


def _begin(delivery_id: str) -> Delivery | None:
    """Count the attempt before it is made: one that kills the process is counted too."""
    if not Delivery.objects.open().filter(pk=delivery_id).update(attempts=F("attempts") + 1):
        return None
    delivery = Delivery.objects.select_related("alert__team", "alert__key").get(pk=delivery_id)
    if delivery.attempts > MAX_ATTEMPTS:
        delivery.give_up(delivery.last_error or history_messages.NOT_ENDED())
        return None
    return delivery


async def deliver_by_mail(delivery: Delivery) -> None:
    message = await sync_to_async(_mail)(delivery)
    try:
        # A thread of its own keeps a slow mail server from holding up anything else.
        await sync_to_async(message.send, thread_sensitive=False)()
    except (smtplib.SMTPException, OSError) as error:
        # Only the class is kept: the text of these errors names addresses.
        raise DeliveryFailed(history_messages.NOT_TAKEN(error=type(error).__name__)) from None


def _mail(delivery: Delivery) -> EmailMessage:
    to = messages.recipients(delivery.alert)
    if not to or not settings.HAS_MAIL:
        raise NoRecipients(history_messages.NO_ADDRESS())
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    headers = {"Message-ID": f"<{delivery.pk}@{domain}>", "Auto-Submitted": "auto-generated"}
    # The site's language: whoever reads it is not asking at this moment.
    with override(settings.LANGUAGE_CODE):
        return EmailMessage(messages.headline(delivery.alert), messages.text(delivery.alert), to=to, headers=headers)


async def deliver_by_webhook(delivery: Delivery) -> None:
    webhook, body = await sync_to_async(_post)(delivery)
    try:
        await webhook.post(delivery.pk, body)
    except WebhookError as error:
        raise DeliveryFailed(str(error)) from None


def _post(delivery: Delivery) -> tuple[Webhook, bytes]:
    webhook: Webhook | None = Webhook.objects.for_team(delivery.alert.team_id).filter(disabled_at=None).first()
    if webhook is None:
        raise NoRecipients(history_messages.NO_WEBHOOK())
    return webhook, messages.payload(delivery.alert)


DELIVER: dict[Channel, Callable[[Delivery], Awaitable[None]]] = {
    Channel.MAIL: deliver_by_mail,
    Channel.WEBHOOK: deliver_by_webhook,
}
