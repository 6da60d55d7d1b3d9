-- A dataset's own word, which is in no text: it begins with a blank.
CREATE OR REPLACE FUNCTION datasets_dataset_word(dataset_id text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$ SELECT ' ' || dataset_id $$;

-- What a datum is found by: its words, and the dataset's own.
CREATE OR REPLACE FUNCTION datasets_search_vector(words text, dataset_id text) RETURNS tsvector
LANGUAGE sql IMMUTABLE AS $$
    SELECT to_tsvector('pg_catalog.english', words) || array_to_tsvector(ARRAY[datasets_dataset_word(dataset_id)])
$$;

CREATE INDEX IF NOT EXISTS datum_by_words ON datasets_datum USING gin (words);

-- migrate:down
DROP INDEX IF EXISTS datum_by_words;
DROP FUNCTION IF EXISTS datasets_search_vector(text, text);
DROP FUNCTION IF EXISTS datasets_dataset_word(text);
