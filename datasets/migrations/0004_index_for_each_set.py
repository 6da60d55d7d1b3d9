"""Vectors are indexed set by set, where a set is large, and no longer all of one dimension together.

The indexes of sets that are large already are built by the job that looks for them, within ten minutes.
"""

from django.db import migrations

DROP = """
DO $$
DECLARE name text;
BEGIN
    FOR name IN
        SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = 'datasets_vector'::regclass AND relname ~ '^vector_hnsw_{}[0-9]+$'
    LOOP
        EXECUTE format('DROP INDEX %I', name);
    END LOOP;
END $$;
"""
UNDO = """
CREATE INDEX vector_hnsw_256 ON datasets_vector
    USING hnsw ((embedding::vector(256)) vector_ip_ops) WHERE vector_dims(embedding) = 256;
"""


class Migration(migrations.Migration):
    dependencies = [("datasets", "0003_imports")]

    operations = [migrations.RunSQL(DROP.format(""), DROP.format("of_") + UNDO)]
