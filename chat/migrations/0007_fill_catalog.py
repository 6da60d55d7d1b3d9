"""Each provider's model that apps use or that has a price becomes a model of the team, with one route."""

from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def fill(apps: Any, editor: BaseDatabaseSchemaEditor) -> None:
    # The database gives each route its team only once 0008 has run.
    for app in apps.get_model("chat", "App").objects.order_by("pk"):
        app.catalog_model = find_or_make(apps, app.provider, app.model)
        app.save(update_fields=["catalog_model"])
    for price in apps.get_model("chat", "Price").objects.order_by("pk"):
        model = find_or_make(apps, price.provider, price.model)
        model.prompt_price, model.completion_price = price.prompt_micropoints, price.completion_micropoints
        if not model.apps.exists():
            model.kind = "embedding"
        model.save(update_fields=["prompt_price", "completion_price", "kind"])


def find_or_make(apps: Any, provider: Any, name: str) -> Any:
    routes = apps.get_model("chat", "Route").objects
    models = apps.get_model("chat", "CatalogModel").objects
    known = routes.select_related("model").filter(provider=provider, upstream_name=name).first()
    if known is not None:
        return known.model
    # Another provider of the team may have a model of this name.
    is_taken = models.filter(team=provider.team_id, name=name).exists()
    model = models.create(team_id=provider.team_id, name=f"{name} ({provider.name})"[:200] if is_taken else name)
    if is_taken:
        # Keys that may use the one may use the other.
        for api_key in apps.get_model("apikeys", "ApiKey").objects.filter(
            team=provider.team_id, allowed_models__contains=[name]
        ):
            api_key.allowed_models = [*api_key.allowed_models, model.name]
            api_key.save(update_fields=["allowed_models"])
    routes.create(team_id=provider.team_id, model=model, provider=provider, upstream_name=name)
    return model


def empty(apps: Any, editor: BaseDatabaseSchemaEditor) -> None:
    prices = apps.get_model("chat", "Price").objects
    for route in apps.get_model("chat", "Route").objects.select_related("model").order_by("pk"):
        model = route.model
        if model.prompt_price or model.completion_price:
            prices.get_or_create(
                provider_id=route.provider_id,
                model=route.upstream_name,
                defaults={
                    "prompt_micropoints": model.prompt_price,
                    "completion_micropoints": model.completion_price,
                },
            )
    for app in apps.get_model("chat", "App").objects.select_related("catalog_model"):
        route = app.catalog_model.routes.order_by("priority", "pk").first()
        app.provider_id, app.model, app.catalog_model = route.provider_id, route.upstream_name, None
        app.save(update_fields=["provider", "model", "catalog_model"])
    apps.get_model("chat", "CatalogModel").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0006_catalog"),
    ]

    operations = [
        migrations.RunPython(fill, empty),
    ]
