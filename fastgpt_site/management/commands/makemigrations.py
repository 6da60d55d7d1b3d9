"""Django's command, for which a changed label or help text is no change: no database holds them."""

from typing import Any

from django.core.management.commands import makemigrations
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.state import ModelState, ProjectState


class SchemaAutodetector(MigrationAutodetector):
    """Compares, and so writes, models without verbose names, help texts, choices and validators."""

    def __init__(self, from_state: ProjectState, to_state: ProjectState, questioner: Any = None) -> None:
        super().__init__(without_texts(from_state), without_texts(to_state), questioner)


def without_texts(state: ProjectState) -> ProjectState:
    return ProjectState(
        {key: model_without_texts(model) for key, model in state.models.items()}, real_apps=state.real_apps
    )


def model_without_texts(model: ModelState) -> ModelState:
    fields = {name: field_without_texts(field) for name, field in model.fields.items()}
    options = {name: value for name, value in model.options.items() if not name.startswith("verbose_name")}
    return ModelState(model.app_label, model.name, list(fields.items()), options, model.bases, list(model.managers))


def field_without_texts(field: Any) -> Any:
    bare = field.clone()
    bare._verbose_name, bare.help_text, bare.choices, bare._validators = None, "", None, []
    if hasattr(bare, "base_field"):
        bare.base_field = field_without_texts(bare.base_field)
    return bare


class Command(makemigrations.Command):
    autodetector = SchemaAutodetector
