from django.apps import AppConfig
from django.core.checks import register
from django.utils.translation import gettext_lazy as _


class DatasetsConfig(AppConfig):
    name = "datasets"
    verbose_name = _("Knowledge bases")

    def ready(self) -> None:
        from apikeys.audit import recording
        from datasets.checks import check_index_memory
        from datasets.models import PROGRESS, Collection, Dataset

        register(check_index_memory)
        recording.register(Dataset, lambda dataset: dataset.team_id, exclude={"created_at", "updated_at"})
        recording.register(
            Collection,
            lambda collection: collection.dataset.team_id,
            exclude={"created_at", "updated_at", "state", "failure", *PROGRESS},
        )
