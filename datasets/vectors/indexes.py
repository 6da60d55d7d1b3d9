"""Indexes over vectors: each large vector set has one of its own.

So what others have is never in the way of a search, the vectors of small sets are written without any index, and that
of a set that is gone goes as a whole.
"""

import logging

import psycopg
from django.conf import settings

from apikeys.hot_path.connections import Connection, connect
from datasets.models import MAXIMUM_ATTEMPTS

logger = logging.getLogger(__name__)

# The number of the vector set follows.
NAME = "vector_hnsw_of_"
# Fewer vectors are compared one by one: that is exact, and takes milliseconds.
LARGE = 20_000
# Every statement over vectors looks through all indexes there are. Past that, further sets are compared one by one.
MAXIMUM_INDEXES = 200
# pgvector can index vectors of so many numbers of four bytes, and of two.
MAXIMUM_DIMENSION, MAXIMUM_HALVED = 2_000, 4_000
# The lock is the database's, so that one process builds at a time.
LOCK = "SELECT pg_try_advisory_lock(hashtext('datasets_vector_indexes'))"

INDEXES = """
SELECT relname, substr(relname, length(%(name)s) + 1)::bigint, indisvalid
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = 'datasets_vector'::regclass AND relname ~ ('^' || %(name)s || '[0-9]+$')
"""
# A set that is still being made is not searched: its index is built when it is complete, which is the quicker way.
LARGE_SETS = """
SELECT vector_set.id, vector_set.dimension FROM datasets_vectorset AS vector_set
WHERE vector_set.dimension <= %(most)s
    AND EXISTS (SELECT FROM datasets_vector WHERE vector_set_id = vector_set.id OFFSET %(large)s - 1)
    AND (vector_set.is_current OR NOT EXISTS (
        SELECT FROM datasets_pendingvector AS pending
        WHERE pending.vector_set_id = vector_set.id AND pending.attempts < %(attempts)s))
ORDER BY vector_set.id
"""


def index_type_of(dimension: int) -> str:
    return "vector" if dimension <= MAXIMUM_DIMENSION else "halfvec"


def name_of(vector_set_id: int) -> str:
    return f"{NAME}{vector_set_id}"


def build_missing(large: int = LARGE, most: int = MAXIMUM_INDEXES) -> list[int]:
    """Build indexes that large sets lack, while others read and write, and remove those of no set any more.

    Return the vector sets that have got an index.
    """
    with connect(direct=True) as connection:
        connection.execute("SET statement_timeout = 0")
        row = connection.execute(LOCK).fetchone()
        if row is None or not row[0]:
            return []
        # It builds on one core, so that the others go on answering, and in one process: a container often shares little
        # memory.
        connection.execute("SET max_parallel_maintenance_workers = 0")
        connection.execute(f"SET maintenance_work_mem = {settings.VECTOR_INDEX_MEMORY_BYTES // 1024}".encode())
        there = _remove_useless(connection)
        values = {"most": MAXIMUM_HALVED, "large": large, "attempts": MAXIMUM_ATTEMPTS}
        missing = [row for row in connection.execute(LARGE_SETS, values).fetchall() if row[0] not in there]
        room = max(most - len(there), 0)
        return [pk for pk, dimension in missing[:room] if _build(connection, pk, dimension)]


def existing_indexes(connection: Connection) -> list[tuple[str, int, bool]]:
    """Return each index's name, its vector set, which may be gone, and whether its building was completed."""
    return [(name, pk, is_valid) for name, pk, is_valid in connection.execute(INDEXES, {"name": NAME}).fetchall()]


def _remove_useless(connection: Connection) -> set[int]:
    """Return the vector sets whose index is of use. One whose building was cut off is not."""
    there = set()
    for name, vector_set_id, is_valid in existing_indexes(connection):
        query = "SELECT FROM datasets_vectorset WHERE id = %s"
        if is_valid and connection.execute(query, [vector_set_id]).fetchone() is not None:
            there.add(vector_set_id)
        else:
            connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}".encode())
    return there


def _build(connection: Connection, vector_set_id: int, dimension: int) -> bool:
    kind = index_type_of(dimension)
    try:
        connection.execute(
            f"CREATE INDEX CONCURRENTLY {name_of(vector_set_id)} ON datasets_vector"
            f" USING hnsw ((embedding::{kind}({dimension})) {kind}_ip_ops)"
            f" WHERE vector_set_id = {vector_set_id}".encode()
        )
    except psycopg.Error as error:
        logger.warning("the index of vector set %d could not be built: %s", vector_set_id, type(error).__name__)
        return False
    return True
