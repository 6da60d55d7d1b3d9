from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DatasetsConfig(AppConfig):
    name = "datasets"
    verbose_name = _("Knowledge bases")

    def ready(self) -> None:
        from apikeys import audit
        from datasets.models import PROGRESS, Collection, Dataset

        audit.register(Dataset, lambda dataset: dataset.team_id, exclude={"created_at", "updated_at"})
        audit.register(
            Collection,
            lambda collection: collection.dataset.team_id,
            exclude={"created_at", "updated_at", "state", "failure", *PROGRESS},
        )
