"""System checks of the settings for datasets."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error

# PostgreSQL takes no less and no more for maintenance_work_mem.
LEAST, MOST = 2**20, 2**41 - 2**10


def check_index_memory(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    # The setting is used first when a dataset has grown large; a mistake in it is better reported at the start.
    if LEAST <= settings.VECTOR_INDEX_MEMORY_BYTES <= MOST:
        return []
    return [Error(f"VECTOR_INDEX_MEMORY_BYTES: from {LEAST} to {MOST}.", id="datasets.E001")]
