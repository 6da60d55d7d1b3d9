"""Texts of histories and deliveries, stored in English, whoever caused them, and shown in the reader's language."""

from __future__ import annotations

import re
from typing import Any

from django.utils import translation
from django.utils.translation import gettext_noop

_templates: list[MessageTemplate] = []


class MessageTemplate:
    """A text with placeholders such as %(reason)s. The values of those in `translated` are translated as well."""

    def __init__(self, text: str, *, translated: tuple[str, ...] = ()) -> None:
        self.text, self.translated = text, translated
        # Text and the names of placeholders take turns.
        pieces = re.split(r"%\((\w+)\)s", text)
        shapes = [f"(?P<{piece}>.*)" if index % 2 else re.escape(piece) for index, piece in enumerate(pieces)]
        self.pattern = re.compile("".join(shapes), re.DOTALL)
        _templates.append(self)

    def __call__(self, **values: Any) -> str:
        return self.text % values

    def read(self, kept: str) -> str | None:
        """Return a stored text in the reader's language, or None if this template did not make it."""
        found = self.pattern.fullmatch(kept)
        if found is None:
            return None
        values = {
            name: translation.gettext(value) if name in self.translated else value
            for name, value in found.groupdict().items()
        }
        return translation.gettext(self.text) % values


def read(kept: str) -> str:
    """Return a stored text in the reader's language, by the first template that fits, or unchanged if none does."""
    return next((text for one in _templates if (text := one.read(kept)) is not None), kept)


ROTATED = MessageTemplate(gettext_noop("Rotated. The old secret expires %(when)s."), translated=("when",))
DISABLED = MessageTemplate(gettext_noop("Disabled. Reason: %(reason)s"))
ENABLED = MessageTemplate(gettext_noop("Enabled."))
REVOKED = MessageTemplate(gettext_noop("Revoked. Reason: %(reason)s"))
NARROWED_EVERYWHERE = MessageTemplate(gettext_noop("Narrowed to %(endpoints)s, from anywhere."))
NARROWED = MessageTemplate(gettext_noop("Narrowed to %(endpoints)s, from %(networks)s."))
ENDLESS = MessageTemplate(gettext_noop("Set it to never expire."))
ENDING = MessageTemplate(gettext_noop("Set its expiry to %(moment)s."))
IMPORTED = MessageTemplate(gettext_noop("Imported."))
CHANGED_BY_IMPORT = MessageTemplate(gettext_noop("Changed by an import: %(columns)s."))
ARCHIVED = MessageTemplate(gettext_noop("Archived."))
UNARCHIVED = MessageTemplate(gettext_noop("Unarchived."))
NEW_WEBHOOK_SECRET = MessageTemplate(gettext_noop("Generated a new secret. The old one expired at once."))
OPENED = MessageTemplate(gettext_noop("Opened %(endpoint)s to: %(kind)s."), translated=("kind",))
CLOSED = MessageTemplate(gettext_noop("Closed %(endpoint)s to: %(kind)s."), translated=("kind",))

NOT_TAKEN = MessageTemplate(gettext_noop("The mail server did not accept it: %(error)s."))
NO_ADDRESS = MessageTemplate(gettext_noop("No recipient has an email address."))
NO_WEBHOOK = MessageTemplate(gettext_noop("The webhook was disabled or removed."))
NOT_ENDED = MessageTemplate(gettext_noop("No attempt ran to completion."))
TOO_LATE = MessageTemplate(gettext_noop("It did not answer in time."))
PRIVATE_ADDRESS = MessageTemplate(gettext_noop("Its address is private and may not be called."))
ANSWERED = MessageTemplate(gettext_noop("It answered HTTP %(status)s."))
UNREADABLE_SECRET = MessageTemplate(gettext_noop("None of ENCRYPTION_KEYS can decrypt its secret. Generate a new one."))
SECRET_OF_ANOTHER_URL = MessageTemplate(gettext_noop("Its secret belongs to another URL. Generate a new one."))
