"""The admin's page that searches a dataset in all modes, side by side, with the scores of what was found."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django import forms
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanSwitchWidget,
)

from apikeys.errors import ApiError
from datasets.models import Dataset
from datasets.search.quotes import Quote, Score
from datasets.search.retrieval import MAXIMUM_CHARACTERS, MAXIMUM_LIMIT, USUAL_LIMIT, Mode, Query, SearchResult, search

# It is a model admin of datasets, whose module imports this one.
DatasetAdmin = Any
MODES = {
    Mode.EMBEDDING: gettext_lazy("By meaning"),
    Mode.FULL_TEXT: gettext_lazy("By words"),
    Mode.MIXED: gettext_lazy("By both"),
}
SCORES = {
    "embedding": gettext_lazy("similarity"),
    "fullText": gettext_lazy("words"),
    "rrf": gettext_lazy("both ranks"),
    "reRank": gettext_lazy("rerank"),
}
# The page shows so many characters of a quote, and the datum's page the rest.
SHOWN_CHARACTERS = 600


class SearchForm(forms.Form):
    text = forms.CharField(
        label=gettext_lazy("Question"),
        max_length=MAXIMUM_CHARACTERS,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
    )
    limit = forms.IntegerField(
        label=gettext_lazy("Limit"),
        min_value=1,
        max_value=MAXIMUM_LIMIT,
        initial=USUAL_LIMIT,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=gettext_lazy("The maximum number of tokens in all quotes combined, for each mode."),
    )
    similarity = forms.DecimalField(
        label=gettext_lazy("Similarity"),
        min_value=0,
        max_value=1,
        decimal_places=4,
        initial=0,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "0.01"}),
        help_text=gettext_lazy("From 0 to 1: results that are less similar to the question are left out."),
    )
    uses_rerank = forms.BooleanField(
        label=gettext_lazy("Rerank"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=gettext_lazy("Reorder the results with the dataset's rerank model."),
    )


@dataclass(frozen=True, slots=True)
class Column:
    """The result of one mode, or why it has none."""

    mode: Mode
    found: SearchResult | None
    failure: str = ""

    @property
    def title(self) -> Any:
        return MODES[self.mode]

    @property
    def milliseconds(self) -> int:
        return round(self.found.seconds * 1000) if self.found else 0

    @property
    def hits(self) -> list[Hit]:
        return [Hit(quote) for quote in self.found.quotes] if self.found else []


@dataclass(frozen=True, slots=True)
class Hit:
    quote: Quote

    @property
    def q(self) -> str:
        return Truncator(self.quote.q).chars(SHOWN_CHARACTERS)

    @property
    def a(self) -> str:
        return Truncator(self.quote.a).chars(SHOWN_CHARACTERS)

    @property
    def url(self) -> str:
        return reverse("admin:datasets_datum_change", args=[self.quote.id])

    @property
    def scores(self) -> list[tuple[Any, str, int]]:
        """Return (name, value, rank from 1) of each score."""
        return [(SCORES[score.type], value_of(score), score.index + 1) for score in self.quote.scores]


def value_of(score: Score) -> str:
    # Sums of reciprocal ranks are small: with fewer decimals they would look all alike.
    return f"{score.value:.4f}" if score.type == "rrf" else f"{score.value:.3f}"


def search_view(dataset_admin: DatasetAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
    user: Any = request.user
    # The page shows what the data say.
    if not (dataset_admin.has_view_permission(request) and user.has_perm("datasets.view_datum")):
        raise PermissionDenied
    dataset: Dataset | None = dataset_admin.get_object(request, object_id)
    if dataset is None:
        return dataset_admin._get_obj_does_not_exist_redirect(request, dataset_admin.opts, object_id)  # type: ignore[no-any-return]
    # It is sent by POST, since a provider may charge for it: no link on a foreign page asks.
    form = SearchForm(request.POST if request.method == "POST" else None)
    if not dataset.rerank_provider_id:
        form.fields["uses_rerank"].disabled = True
        form.fields["uses_rerank"].help_text = _("The dataset has no rerank model.")
    context = {
        **dataset_admin.admin_site.each_context(request),
        "title": _("Search test"),
        "subtitle": str(dataset),
        "opts": dataset_admin.opts,
        "dataset": dataset,
        "form": form,
    }
    if form.is_valid():
        context["columns"] = columns_of(dataset, form.cleaned_data)
    return TemplateResponse(request, "admin/datasets/dataset/search.html", context)


def columns_of(dataset: Dataset, cleaned: dict[str, Any]) -> list[Column]:
    queries = [
        Query(
            team_id=dataset.team_id,
            dataset_ids=(dataset.pk,),
            text=cleaned["text"],
            mode=mode,
            limit=cleaned["limit"],
            similarity=float(cleaned["similarity"]),
            uses_rerank=cleaned["uses_rerank"],
            holds_thread=True,
        )
        for mode in MODES
    ]
    # This thread's own connection is not held while providers are awaited.
    connection.close()
    return async_to_sync(search_all)(queries)


async def search_all(queries: list[Query]) -> list[Column]:
    return list(await asyncio.gather(*map(search_one, queries)))


async def search_one(query: Query) -> Column:
    try:
        return Column(query.mode, await search(query))
    except ApiError as error:
        # A mode that fails, as where a provider does, leaves the others as they are.
        return Column(query.mode, None, str(error))
