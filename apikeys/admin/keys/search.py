"""Keys in the admin's global search: those that the user may see, found as in the list of keys."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from unfold.dataclasses import SearchResult

from apikeys.keys.models import ApiKey

MAXIMUM_RESULTS = 10


def search(request: HttpRequest, term: str) -> list[SearchResult]:
    keys: Any = admin.site.get_model_admin(ApiKey)
    if not keys.has_view_permission(request):
        return []
    # `term` comes in lower case, and the last four characters of a key must keep theirs.
    words = request.GET.get("s", term).strip()
    if not words:
        return []
    rows, _ = keys.get_search_results(request, keys.get_queryset(request), words)
    found = rows.with_state().order_by("-created_at", "-pk")[:MAXIMUM_RESULTS]
    return [
        SearchResult(
            title=f"{api_key.name} ******{api_key.last_four}",
            description=", ".join(str(part) for part in (api_key.team, api_key.app, api_key.owner) if part),
            link=reverse("admin:apikeys_apikey_change", args=[api_key.pk]),
            icon="key",
        )
        for api_key in found
    ]
