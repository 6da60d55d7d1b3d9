"""Webhooks of teams, and how posts to them are signed: the Standard Webhooks convention, version 1."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
from typing import Any, ClassVar
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apikeys import encryption
from apikeys.audit import history_messages
from apikeys.outbound import sites
from apikeys.outbound.addresses import AddressRefused, is_allowed
from apikeys.outbound.failures import SiteFailed
from apikeys.teams import Team, TeamOwnedQuerySet

SECRET_BYTES = 32
CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 10.0
# Only the status of the response counts. A little of it is read, so that most receivers are not cut off.
ANSWER_BYTES = 4096
ANSWER_SECONDS = 0.5


class WebhookError(Exception):
    """The receiver did not take a post. The message holds neither its address nor the secret."""


class Webhook(models.Model):
    """The one URL that a team's alerts are posted to, and the secret that signs the posts."""

    team = models.OneToOneField(Team, verbose_name=_("team"), on_delete=models.CASCADE, related_name="webhook")
    # The column is plain text: Django's URL field would refuse single-label hosts such as http://alerts:8080/.
    url = models.CharField(
        _("URL"),
        max_length=500,
        help_text=_("Alerts are posted here as JSON. Changing it generates a new secret, which is shown once."),
    )
    encrypted_secret = models.BinaryField(_("encrypted secret"), editable=False)
    secret_made_at = models.DateTimeField(_("secret generated at"), editable=False)
    disabled_at = models.DateTimeField(
        _("disabled at"), null=True, blank=True, help_text=_("While this is set, nothing is posted.")
    )
    last_success_at = models.DateTimeField(_("last success at"), null=True, editable=False)
    last_failure_at = models.DateTimeField(_("last failure at"), null=True, editable=False)
    last_failure = models.CharField(_("last failure"), max_length=200, blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects: ClassVar[Any] = TeamOwnedQuerySet.as_manager()

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        ordering = ["pk"]

    def __str__(self) -> str:
        # The URL is left out: those of many services are secrets themselves, and this goes into the admin's history.
        return str(self.team)

    def clean(self) -> None:
        validate_url(self.url)

    def make_secret(self) -> str:
        """Make a secret for the present URL and return it in the form that its receiver takes. The caller saves."""
        secret = base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
        self.encrypted_secret = encryption.encrypt(f"{self.url}\n{secret}")
        self.secret_made_at = timezone.now()
        return f"whsec_{secret}"

    async def post(self, message_id: str, body: bytes) -> None:
        """Post once, following nothing. Raise WebhookError unless the receiver responds with 2xx in time."""
        headers = {"Content-Type": "application/json", **self.signature(message_id, int(time.time()), body)}
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                response = await sites.post(self.url, body=body, headers=headers, connect_seconds=CONNECT_SECONDS)
        except TimeoutError:
            raise WebhookError(history_messages.TOO_LATE()) from None
        except AddressRefused:
            raise WebhookError(history_messages.PRIVATE_ADDRESS()) from None
        except SiteFailed as error:
            raise WebhookError(f"{error}.") from None
        with contextlib.suppress(TimeoutError, SiteFailed):
            async with asyncio.timeout(ANSWER_SECONDS):
                await sites.read_beginning(response, ANSWER_BYTES)
        response.close()
        if not 200 <= response.status < 300:
            raise WebhookError(history_messages.ANSWERED(status=response.status))

    def signature(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
        digest = hmac.new(self._secret(), signed, hashlib.sha256).digest()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }

    def _secret(self) -> bytes:
        try:
            meant_for, _, secret = encryption.decrypt(bytes(self.encrypted_secret)).partition("\n")
        except encryption.DecryptionError:
            raise WebhookError(history_messages.UNREADABLE_SECRET()) from None
        if meant_for != self.url:
            raise WebhookError(history_messages.SECRET_OF_ANOTHER_URL())
        return base64.b64decode(secret)


def validate_url(url: str) -> None:
    """Raise ValidationError unless this is a URL that may be posted to. The address is checked again at each use."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), 0
    is_plain = url.isascii() and url.isprintable() and not any(character in url for character in " \\#")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or not is_plain:
        raise ValidationError({"url": _("Enter an http or https URL without credentials or fragment.")}, code="invalid")
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ValidationError({"url": _("Its host name cannot be resolved.")}, code="unresolved") from None
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
    if not all(is_allowed(address) for address in addresses):
        raise ValidationError(
            {
                "url": _(
                    "Its address is private. OUTBOUND_ALLOWED_NETWORKS lists the private networks that may be called."
                )
            },
            code="private",
        )
