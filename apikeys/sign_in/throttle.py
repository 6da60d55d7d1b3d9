"""The throttle of attempts at passwords: counted in the database, by name and address, with a growing delay."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from dataclasses import dataclass
from typing import Any, ClassVar

from django.conf import settings
from django.db import connection, models

from apikeys.client_address import Address, network_of

# Each kind of count has so many rows and no more: names or addresses that share one by chance share its delay.
SLOTS = 100_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many attempts are free; each further one doubles the wait before the next, from a second up to `most`."""

    number: int
    free: int
    most: int


# A name at one address, an address, and a name at any address are counted apart. The delay of a name alone stays
# short: whoever tries a name from everywhere must not be able to lock its owner out.
PAIR = Allowance(0, free=5, most=900)
ADDRESS = Allowance(1, free=20, most=900)
NAME = Allowance(2, free=20, most=10)
# Counting starts again after a quiet hour.
FORGOTTEN_SECONDS = 3600
# Attempts of others, elsewhere or from the same address, do not slow a person down where they signed in within these
# days.
KNOWN_DAYS = 30


class SignInCount(models.Model):
    """Attempts that share a slot: a keyed hash of a name, an address or both, so that the table identifies nobody."""

    slot = models.IntegerField(primary_key=True)
    attempts = models.PositiveIntegerField()
    last_at = models.DateTimeField()
    blocked_until = models.DateTimeField()
    signed_in_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return str(self.slot)


# Attempts are counted before the password is checked, in one statement, so that simultaneous ones count each other. A
# row that another attempt has blocked meanwhile is not counted up: then fewer rows come back than were asked for.
COUNT = """
WITH moment AS (SELECT clock_timestamp() AS now), asked AS (
    SELECT * FROM unnest(%(slots)s::int[], %(free)s::int[], %(most)s::int[]) AS asked(slot, free, most)
    WHERE slot = %(pair)s OR NOT EXISTS (
        SELECT FROM apikeys_signincount, moment
        WHERE slot = %(pair)s AND signed_in_at > now - %(known)s * interval '1 day')
), blocked AS (
    SELECT max(blocked_until) AS until FROM apikeys_signincount JOIN asked USING (slot), moment
    WHERE blocked_until > now
), counted AS (
    INSERT INTO apikeys_signincount AS held (slot, attempts, last_at, blocked_until)
    SELECT slot, 1, now, now FROM asked, moment, blocked WHERE until IS NULL ORDER BY slot
    ON CONFLICT (slot) DO UPDATE SET
        attempts = CASE WHEN held.last_at < excluded.last_at - %(forgotten)s * interval '1 second'
            THEN 1 ELSE held.attempts + 1 END,
        last_at = excluded.last_at,
        blocked_until = excluded.last_at + interval '1 second' * CASE
            WHEN held.last_at < excluded.last_at - %(forgotten)s * interval '1 second' THEN 0
            ELSE (SELECT CASE WHEN held.attempts + 1 < free THEN 0
                ELSE least(most, 2 ^ least(held.attempts + 1 - free, 20)) END FROM asked WHERE slot = held.slot) END
    WHERE held.blocked_until <= excluded.last_at
    RETURNING slot
)
SELECT (SELECT array_agg(slot) FROM counted), (SELECT count(*) FROM asked),
    coalesce(ceil(extract(epoch FROM (SELECT until FROM blocked) - (SELECT now FROM moment))), 1)::int
"""

# Success clears the count of the pair. The counts of its address and its name lose only this attempt, so that
# somebody's own successes do not pay for guesses at others.
SUCCEED = """
UPDATE apikeys_signincount SET
    attempts = CASE WHEN slot = %(pair)s THEN 0 ELSE greatest(attempts - 1, 0) END,
    blocked_until = last_at,
    signed_in_at = CASE WHEN slot = %(pair)s THEN clock_timestamp() ELSE signed_in_at END
WHERE slot = ANY (%(slots)s)
"""


class Attempt:
    """One attempt at the password of a name, from an address."""

    kinds: ClassVar[tuple[Allowance, ...]] = (PAIR, ADDRESS, NAME)

    def __init__(self, name: str, address: Address | None) -> None:
        # Names are compared as Django compares them, and regardless of case.
        name = unicodedata.normalize("NFKC", name).casefold()
        place = network_of(address) if address else "unknown"
        self.slots = [slot_of(PAIR, f"{place} {name}"), slot_of(ADDRESS, place), slot_of(NAME, name)]
        # Those in which `count` counted it.
        self.counted: list[int] = []

    def count(self) -> int:
        """Count the attempt; return 0, or for how many seconds no password is checked."""
        values: dict[str, Any] = {
            "slots": self.slots,
            "free": [kind.free for kind in self.kinds],
            "most": [kind.most for kind in self.kinds],
            "pair": self.slots[0],
            "known": KNOWN_DAYS,
            "forgotten": FORGOTTEN_SECONDS,
        }
        with connection.cursor() as cursor:
            cursor.execute(COUNT, values)
            counted, asked, seconds = cursor.fetchone()
        self.counted = counted or []
        return 0 if len(self.counted) == asked else int(seconds)

    def succeed(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(SUCCEED, {"slots": self.counted, "pair": self.slots[0]})


def slot_of(kind: Allowance, text: str) -> int:
    digest = hmac.digest(settings.SECRET_KEY.encode(), f"sign-in {kind.number} {text}".encode(), hashlib.sha256)
    return kind.number * SLOTS + int.from_bytes(digest[:8]) % SLOTS
