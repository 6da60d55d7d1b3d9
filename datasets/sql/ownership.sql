-- The database itself removes what belongs to a row that goes, and nothing crosses datasets.
ALTER TABLE datasets_collection
    DROP CONSTRAINT IF EXISTS collection_of_its_dataset,
    ADD CONSTRAINT collection_of_its_dataset FOREIGN KEY (dataset_id)
        REFERENCES datasets_dataset (id) ON DELETE CASCADE;

ALTER TABLE datasets_collection
    DROP CONSTRAINT IF EXISTS collection_of_its_parent,
    ADD CONSTRAINT collection_of_its_parent FOREIGN KEY (parent_id, dataset_id)
        REFERENCES datasets_collection (id, dataset_id) ON DELETE CASCADE;

ALTER TABLE datasets_sourcepiece
    DROP CONSTRAINT IF EXISTS sourcepiece_of_its_collection,
    ADD CONSTRAINT sourcepiece_of_its_collection FOREIGN KEY (collection_id)
        REFERENCES datasets_collection (id) ON DELETE CASCADE;

ALTER TABLE datasets_datum
    DROP CONSTRAINT IF EXISTS datum_of_its_collection,
    ADD CONSTRAINT datum_of_its_collection FOREIGN KEY (collection_id, dataset_id)
        REFERENCES datasets_collection (id, dataset_id) ON DELETE CASCADE;

ALTER TABLE datasets_indextext
    DROP CONSTRAINT IF EXISTS indextext_of_its_datum,
    ADD CONSTRAINT indextext_of_its_datum FOREIGN KEY (datum_id, dataset_id)
        REFERENCES datasets_datum (id, dataset_id) ON DELETE CASCADE;

ALTER TABLE datasets_vectorset
    DROP CONSTRAINT IF EXISTS vectorset_of_its_dataset,
    ADD CONSTRAINT vectorset_of_its_dataset FOREIGN KEY (dataset_id)
        REFERENCES datasets_dataset (id) ON DELETE CASCADE;

ALTER TABLE datasets_vector
    DROP CONSTRAINT IF EXISTS vector_of_its_vector_set,
    ADD CONSTRAINT vector_of_its_vector_set FOREIGN KEY (vector_set_id)
        REFERENCES datasets_vectorset (id) ON DELETE CASCADE;

ALTER TABLE datasets_vector
    DROP CONSTRAINT IF EXISTS vector_of_its_index_text,
    ADD CONSTRAINT vector_of_its_index_text FOREIGN KEY (index_text_id)
        REFERENCES datasets_indextext (id) ON DELETE CASCADE;

ALTER TABLE datasets_pendingvector
    DROP CONSTRAINT IF EXISTS pendingvector_of_its_vector_set,
    ADD CONSTRAINT pendingvector_of_its_vector_set FOREIGN KEY (vector_set_id)
        REFERENCES datasets_vectorset (id) ON DELETE CASCADE;

ALTER TABLE datasets_pendingvector
    DROP CONSTRAINT IF EXISTS pendingvector_of_its_index_text,
    ADD CONSTRAINT pendingvector_of_its_index_text FOREIGN KEY (index_text_id)
        REFERENCES datasets_indextext (id) ON DELETE CASCADE;

ALTER TABLE datasets_pendingvector
    DROP CONSTRAINT IF EXISTS pendingvector_of_its_collection,
    ADD CONSTRAINT pendingvector_of_its_collection FOREIGN KEY (collection_id)
        REFERENCES datasets_collection (id) ON DELETE CASCADE;

-- migrate:down
ALTER TABLE datasets_pendingvector DROP CONSTRAINT IF EXISTS pendingvector_of_its_collection;
ALTER TABLE datasets_pendingvector DROP CONSTRAINT IF EXISTS pendingvector_of_its_index_text;
ALTER TABLE datasets_pendingvector DROP CONSTRAINT IF EXISTS pendingvector_of_its_vector_set;
ALTER TABLE datasets_vector DROP CONSTRAINT IF EXISTS vector_of_its_index_text;
ALTER TABLE datasets_vector DROP CONSTRAINT IF EXISTS vector_of_its_vector_set;
ALTER TABLE datasets_vectorset DROP CONSTRAINT IF EXISTS vectorset_of_its_dataset;
ALTER TABLE datasets_indextext DROP CONSTRAINT IF EXISTS indextext_of_its_datum;
ALTER TABLE datasets_datum DROP CONSTRAINT IF EXISTS datum_of_its_collection;
ALTER TABLE datasets_sourcepiece DROP CONSTRAINT IF EXISTS sourcepiece_of_its_collection;
ALTER TABLE datasets_collection DROP CONSTRAINT IF EXISTS collection_of_its_parent;
ALTER TABLE datasets_collection DROP CONSTRAINT IF EXISTS collection_of_its_dataset;
