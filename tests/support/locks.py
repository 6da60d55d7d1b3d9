"""Who waits for whom in the database, for tests of races."""

from typing import Any


def is_waited_for(connection: Any) -> bool:
    """Whether anybody waits for the end of the transaction that this connection, Django's or psycopg's, is in."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid)"
        )
        return bool(cursor.fetchone()[0])
