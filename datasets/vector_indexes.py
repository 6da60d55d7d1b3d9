"""Indexes over vectors, one for each dimension that a large set has. That of the static model is always there."""

import logging

import psycopg

from apikeys.database import Connection, connect

logger = logging.getLogger(__name__)

# Where an exact comparison of all would take too long.
LARGE = 20_000
# What pgvector can index: numbers of four bytes, and of two.
MAXIMUM_DIMENSION, MAXIMUM_HALVED = 2_000, 4_000
# Of the database, so that one process builds at a time.
LOCK = "SELECT pg_try_advisory_lock(hashtext('datasets_vector_indexes'))"

MISSING = """
SELECT DISTINCT vector_set.dimension FROM datasets_vectorset AS vector_set
WHERE vector_set.dimension <= %(most)s AND NOT EXISTS (
        SELECT FROM pg_index WHERE indexrelid = to_regclass('vector_hnsw_' || vector_set.dimension) AND indisvalid)
    AND EXISTS (SELECT FROM datasets_vector WHERE vector_set_id = vector_set.id OFFSET %(large)s - 1)
"""


def type_of(dimension: int) -> str:
    """What vectors are cast to for the index, and in queries that use it."""
    return "vector" if dimension <= MAXIMUM_DIMENSION else "halfvec"


def build_missing(large: int = LARGE) -> list[int]:
    """Build what large sets lack, while others read and write; return the dimensions."""
    with connect(direct=True) as connection:
        connection.execute("SET statement_timeout = 0")
        row = connection.execute(LOCK).fetchone()
        if row is None or not row[0]:
            return []
        missing = connection.execute(MISSING, {"most": MAXIMUM_HALVED, "large": large}).fetchall()
        return [dimension for (dimension,) in missing if _build(connection, dimension)]


def _build(connection: Connection, dimension: int) -> bool:
    name, kind = f"vector_hnsw_{dimension}", type_of(dimension)
    try:
        # One whose building was cut off is there, and of no use.
        connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}".encode())
        connection.execute(
            f"CREATE INDEX CONCURRENTLY {name} ON datasets_vector"
            f" USING hnsw ((embedding::{kind}({dimension})) {kind}_ip_ops)"
            f" WHERE vector_dims(embedding) = {dimension}".encode()
        )
    except psycopg.Error as error:
        logger.warning("the index of vectors of %d numbers could not be built: %s", dimension, type(error).__name__)
        return False
    return True
