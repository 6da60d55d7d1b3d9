"""What the database itself holds: that nothing crosses datasets or teams, what goes with what, and how data are found."""

from django.db import migrations

# (table, columns, table referred to, its columns)
OWNED = [
    ("collection", "dataset_id", "dataset", "id"),
    ("collection", "parent_id, dataset_id", "collection", "id, dataset_id"),
    ("sourcepiece", "collection_id", "collection", "id"),
    ("datum", "collection_id, dataset_id", "collection", "id, dataset_id"),
    ("indextext", "datum_id, dataset_id", "datum", "id, dataset_id"),
    ("vectorset", "dataset_id", "dataset", "id"),
    ("vector", "vector_set_id", "vectorset", "id"),
    ("vector", "index_text_id", "indextext", "id"),
    ("pendingvector", "vector_set_id", "vectorset", "id"),
    ("pendingvector", "index_text_id", "indextext", "id"),
    ("pendingvector", "collection_id", "collection", "id"),
]


def name_of(table: str, columns: str) -> str:
    return f"{table}_of_its_{columns.partition('_id')[0]}"


FOREIGN_KEYS = "".join(
    f"""
ALTER TABLE datasets_{table} ADD CONSTRAINT {name_of(table, columns)} FOREIGN KEY ({columns})
    REFERENCES datasets_{other} ({others}) ON DELETE CASCADE;
"""
    for table, columns, other, others in OWNED
)

TENANCY = """
ALTER TABLE datasets_dataset ADD CONSTRAINT dataset_rerank_provider_in_team
    FOREIGN KEY (rerank_provider_id, team_id) REFERENCES chat_provider (id, team_id) DEFERRABLE INITIALLY DEFERRED;

CREATE FUNCTION guard_dataset() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the team of a dataset never changes' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON datasets_dataset FOR EACH ROW
    WHEN ((OLD.id, OLD.team_id) <> (NEW.id, NEW.team_id)) EXECUTE FUNCTION guard_dataset();

CREATE FUNCTION guard_vector_set() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM datasets_dataset AS dataset JOIN chat_provider AS provider ON provider.team_id = dataset.team_id
        WHERE dataset.id = NEW.dataset_id AND provider.id = NEW.provider_id
    ) THEN
        RAISE EXCEPTION 'a provider belongs to another team' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OF dataset_id, provider_id ON datasets_vectorset FOR EACH ROW
    WHEN (NEW.provider_id IS NOT NULL) EXECUTE FUNCTION guard_vector_set();
"""

SEARCH = """
-- A dataset's own word, which is in no text: it begins with a blank.
CREATE FUNCTION dataset_word(dataset_id text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT ' ' || dataset_id $$;

-- What a datum is found by: its words, and the dataset's own.
CREATE FUNCTION search_vector(words text, dataset_id text) RETURNS tsvector LANGUAGE sql IMMUTABLE AS $$
    SELECT to_tsvector('pg_catalog.english', words) || array_to_tsvector(ARRAY[dataset_word(dataset_id)])
$$;

CREATE INDEX datum_by_words ON datasets_datum USING gin (words);
CREATE INDEX vector_hnsw_256 ON datasets_vector
    USING hnsw ((embedding::vector(256)) vector_ip_ops) WHERE vector_dims(embedding) = 256;
"""

UNDO = """
DROP INDEX vector_hnsw_256;
DROP INDEX datum_by_words;
DROP FUNCTION search_vector(text, text);
DROP FUNCTION dataset_word(text);
DROP TRIGGER guard ON datasets_vectorset;
DROP FUNCTION guard_vector_set();
DROP TRIGGER guard ON datasets_dataset;
DROP FUNCTION guard_dataset();
ALTER TABLE datasets_dataset DROP CONSTRAINT dataset_rerank_provider_in_team;
"""
UNDO += "".join(
    f"ALTER TABLE datasets_{table} DROP CONSTRAINT {name_of(table, columns)};\n"
    for table, columns, _, _ in reversed(OWNED)
)


class Migration(migrations.Migration):
    dependencies = [("datasets", "0001_initial"), ("chat", "0002_guards")]

    operations = [migrations.RunSQL(FOREIGN_KEYS + TENANCY + SEARCH, UNDO)]
