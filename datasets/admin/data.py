"""The admin's pages of data: each question with its answer, and the texts by which it is found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.postgres.search import SearchQuery
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.widgets import UnfoldAdminTextareaWidget

from apikeys.admin.filters import ScopedListFilter
from apikeys.admin.long_lists import words
from apikeys.admin.scope import rows_for
from apikeys.object_ids import is_object_id
from datasets import data
from datasets.admin.base import DatasetOwnedPages
from datasets.data import MAXIMUM_INDEX_TEXTS, NewDatum, clean, digest_of
from datasets.models import MAXIMUM_ATTEMPTS, Collection, Dataset, Datum, IndexText, Kind, PendingVector
from datasets.texts import MAXIMUM_TOKENS, are_too_long, words_of

if TYPE_CHECKING:
    DatumModelForm = forms.ModelForm[Datum]
else:
    DatumModelForm = forms.ModelForm

EMPTY_LINES = re.compile(r"\n\s*\n")
# A search by words names at most so many datasets; of more, it looks through everybody's and leaves others' out.
MAXIMUM_NAMED = 1_000
# The list shows so much of a text: a narrow screen has two lines for it.
SHOWN_CHARACTERS = 55


class ParagraphsField(forms.CharField):
    """A list of texts, separated by empty lines, since a text may have lines of its own."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 4})

    def prepare_value(self, value: Any) -> Any:
        return "\n\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        return self.items(super().clean(value))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.items(data or "") != [clean(text) for text in initial or []]

    @staticmethod
    def items(text: str) -> list[str]:
        paragraphs = EMPTY_LINES.split(text.replace("\r\n", "\n").replace("\r", "\n"))
        return list(dict.fromkeys(cleaned for one in paragraphs if (cleaned := clean(one))))


class DatumForm(DatumModelForm):
    index_texts = ParagraphsField(
        label=gettext_lazy("Other texts"),
        required=False,
        help_text=gettext_lazy(
            "Searches find it by these as well as by its question or text: other ways to ask, or a summary. "
            "Separate them with an empty line."
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        datum = kwargs.get("instance")
        if datum is not None and datum.pk:
            kwargs["initial"] = {"index_texts": other_texts(datum)} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)

    def clean_index_texts(self) -> list[str]:
        texts: list[str] = self.cleaned_data["index_texts"]
        if len(texts) > MAXIMUM_INDEX_TEXTS:
            raise ValidationError(_("At most %(number)s.") % {"number": MAXIMUM_INDEX_TEXTS})
        if any(are_too_long(texts)):
            raise ValidationError(_("A text is longer than %(number)s tokens.") % {"number": MAXIMUM_TOKENS})
        return texts

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        q, a = clean(cleaned.get("q") or ""), clean(cleaned.get("a") or "")
        collection = cleaned.get("collection") or (self.instance.collection if self.instance.collection_id else None)
        if not q or collection is None:
            return cleaned
        if any(are_too_long([f"{q}\n{a}"])):
            raise ValidationError(
                {"q": _("Question and answer together are longer than %(number)s tokens.") % {"number": MAXIMUM_TOKENS}}
            )
        same = Datum.objects.filter(collection=collection, digest=digest_of(q, a)).exclude(pk=self.instance.pk)
        if same.exists():
            raise ValidationError({"q": _("The collection has this question with this answer already.")})
        return cleaned


def other_texts(datum: Datum) -> list[str]:
    return list(datum.index_texts.filter(is_default=False).values_list("text", flat=True))


class DatasetWords(SearchQuery):
    """Matches all data of these datasets: each has its dataset's own word, see `datasets_dataset_word()`."""

    template = "(%(expressions)s)::tsquery"

    def __init__(self, dataset_ids: list[str]) -> None:
        super().__init__(" | ".join(f"' {dataset_id}'" for dataset_id in dataset_ids))


@admin.register(Datum)
class DatumAdmin(DatasetOwnedPages):
    form = DatumForm
    # The path goes by the collection, whose index has its data in their order.
    team_path = "collection__dataset__team"
    list_display = ("text", "answer", "collection", "chunk_index", "updated_at")
    list_filter = (("collection", ScopedListFilter),)
    list_select_related = ("collection",)
    search_fields = ("words",)
    search_help_text = gettext_lazy("Words from the question, text or answer, all of which must occur; or an id.")
    ordering = ("collection_id", "chunk_index", "pk")
    sortable_by = ()

    def rows_of_page(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.defer("words", "digest")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        sought = " ".join(words(search_term))
        if not sought:
            return queryset, False
        if is_object_id(sought):
            return queryset.filter(pk=sought), False
        query = SearchQuery(words_of(sought), config="pg_catalog.english")
        datasets = self._datasets_to_search(request)
        found = queryset.filter(words=query)
        # It is a condition of its own: with words that say nothing it would be all there is.
        return found if datasets is None else found.filter(words=DatasetWords(datasets)), False

    @staticmethod
    def _datasets_to_search(request: HttpRequest) -> list[str] | None:
        user: Any = request.user
        collection_id = request.GET.get("collection__id__exact")
        if user.is_superuser and collection_id is None:
            # None stands for all of them.
            return None
        datasets = rows_for(Dataset, user).order_by()
        if collection_id is not None:
            datasets = datasets.filter(collections=collection_id)
        found = list(datasets.values_list("pk", flat=True)[: MAXIMUM_NAMED + 1])
        return found if 0 < len(found) <= MAXIMUM_NAMED else None

    def get_fieldsets(self, request: HttpRequest, obj: Datum | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("collection", "q", "a", "index_texts")})]
        texts = "index_texts" if self.has_change_permission(request, obj) else "its_texts"
        place = ("id", "collection", "chunk_index", "found_by", "created_at", "updated_at")
        return [(None, {"fields": ("q", "a", texts)}), (_("Position"), {"fields": place})]

    def get_readonly_fields(self, request: HttpRequest, obj: Datum | None = None) -> tuple[str, ...]:
        facts = ("id", "collection", "chunk_index", "found_by", "created_at", "updated_at")
        return (*facts, "its_texts") if obj else ()

    def get_field_queryset(self, db: str | None, db_field: Any, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_field_queryset(db, db_field, request)
        return rows.exclude(kind=Kind.FOLDER) if db_field.name == "collection" else rows

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        collections = rows_for(Collection, request.user).exclude(kind=Kind.FOLDER)
        return {"collection": collections.filter(pk=request.GET.get("collection", "")).first()}

    def save_model(self, request: HttpRequest, obj: Datum, form: Any, change: bool) -> None:
        cleaned = form.cleaned_data
        if not change:
            insert_one(obj, cleaned["index_texts"])
        elif form.changed_data:
            texts = cleaned["index_texts"] if "index_texts" in form.changed_data else None
            data.change(obj, q=cleaned["q"], a=cleaned["a"], index_texts=texts)

    def response_add(self, request: HttpRequest, obj: Datum, post_url_continue: str | None = None) -> HttpResponse:
        response = super().response_add(request, obj, post_url_continue)
        if "_addanother" in request.POST:
            # The next one goes into the same collection.
            return HttpResponseRedirect(f"{request.path}?collection={obj.collection_id}")
        return response

    @admin.display(description=gettext_lazy("question or text"))
    def text(self, datum: Datum) -> str:
        return Truncator(datum.q).chars(SHOWN_CHARACTERS)

    @admin.display(description=gettext_lazy("answer"))
    def answer(self, datum: Datum) -> str:
        return Truncator(datum.a).chars(SHOWN_CHARACTERS)

    @admin.display(description=gettext_lazy("Other texts"))
    def its_texts(self, datum: Datum) -> str:
        return "\n\n".join(other_texts(datum)) or "-"

    @admin.display(description=gettext_lazy("found by"))
    def found_by(self, datum: Datum) -> str:
        texts = IndexText.objects.filter(datum=datum).count()
        pending = PendingVector.objects.filter(index_text__datum=datum, vector_set__is_current=True)
        waiting = pending.open().count()
        text = ngettext("%(count)s text", "%(count)s texts", texts) % {"count": texts}
        if waiting:
            text += "; " + ngettext(
                "%(count)s is waiting for its vector", "%(count)s are waiting for their vectors", waiting
            ) % {"count": waiting}
        if refused := pending.filter(attempts__gte=MAXIMUM_ATTEMPTS).exclude(failure="").first():
            text += "; " + _("refused by the model: %(reason)s") % {"reason": refused.failure}
        return text


def insert_one(datum: Datum, index_texts: list[str]) -> None:
    """Raise IntegrityError when its collection has it already, by somebody who was quicker."""
    insertion = data.insert(datum.collection, [NewDatum(datum.q, datum.a, index_texts=index_texts)])
    if not insertion.ids:
        raise IntegrityError("The collection has it already.")
    datum.pk = insertion.ids[0]
