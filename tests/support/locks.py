"""Locks of the database that somebody waits for, for tests of races."""

from typing import Any


def is_waited_for(connection: Any) -> bool:
    """Return whether anybody waits for the end of the transaction of this connection, Django's or psycopg's."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid)"
        )
        return bool(cursor.fetchone()[0])
