"""The admin of knowledge bases. What a user meets there is decided in `apikeys.admin.scope`."""

from datasets.collection_admin import CollectionAdmin
from datasets.dataset_admin import DatasetAdmin
from datasets.datum_admin import DatumAdmin

__all__ = ["CollectionAdmin", "DatasetAdmin", "DatumAdmin"]
