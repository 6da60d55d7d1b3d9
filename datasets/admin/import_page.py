"""The admin's page that fills a dataset with files, texts and links, and tells how far each of them is.

Files go to the API's own endpoint, one request each, which takes more than a page's form may hold.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from apikeys.errors import RateLimited
from apikeys.object_ids import is_object_id
from datasets.admin import counts
from datasets.admin.base import readable_name
from datasets.conversion.formats import EXTENSIONS, Unreadable
from datasets.imports import sources
from datasets.models import (
    LARGEST_CHUNK,
    MAXIMUM_ATTEMPTS,
    SMALLEST_CHUNK,
    USUAL_CHUNK,
    Collection,
    Dataset,
    ImportState,
    Kind,
    PendingVector,
)

# It is a model admin of datasets, whose module imports this one.
DatasetAdmin = Any
FILE_PATH = "/api/core/dataset/collection/create/localFile"
# The page shows so many imports when it is opened, and asks about so many at once.
SHOWN, ASKED = 20, 100
# More folders than a list should have are found by nobody: what is imported can be moved later.
MAXIMUM_FOLDERS = 500


class ImportForm(forms.Form):
    """A text or a link, by the button that was pressed; folder and size are for files as well."""

    parent = forms.ModelChoiceField(
        label=gettext_lazy("Folder"),
        queryset=Collection.objects.none(),
        required=False,
        widget=UnfoldAdminSelectWidget,
    )
    chunk_size = forms.IntegerField(
        label=gettext_lazy("Chunk size"),
        min_value=SMALLEST_CHUNK,
        max_value=LARGEST_CHUNK,
        initial=USUAL_CHUNK,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=gettext_lazy("The maximum number of tokens in each piece that a source is split into."),
    )
    link = forms.CharField(
        label=gettext_lazy("URL of a page"), required=False, max_length=2_000, widget=UnfoldAdminTextInputWidget
    )
    name = forms.CharField(
        label=gettext_lazy("Name of the text"),
        required=False,
        max_length=sources.MAXIMUM_NAME,
        widget=UnfoldAdminTextInputWidget,
        help_text=gettext_lazy("Empty: its first words."),
    )
    text = forms.CharField(
        label=gettext_lazy("Text"),
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 6}),
        help_text=gettext_lazy("Plain text or Markdown."),
    )

    def __init__(self, dataset: Dataset, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        folders = dataset.collections.filter(kind=Kind.FOLDER).order_by("name", "pk")
        self.dataset = dataset
        self.fields["parent"].queryset = Collection.objects.filter(  # type: ignore[attr-defined]
            pk__in=list(folders.values_list("pk", flat=True)[:MAXIMUM_FOLDERS])
        ).order_by("name", "pk")

    def clean_name(self) -> str:
        return readable_name(self.cleaned_data["name"])

    def apply(self) -> Collection | None:
        """Return the collection that is being imported; None when the form says what is wrong."""
        cleaned = self.cleaned_data
        is_link = "import_link" in self.data
        options = sources.ImportOptions(
            name="" if is_link else cleaned["name"], parent=cleaned["parent"], chunk_size=cleaned["chunk_size"]
        )
        try:
            if is_link:
                return sources.from_link(self.dataset, cleaned["link"], options)
            return sources.from_text(self.dataset, cleaned["text"], options)
        except (Unreadable, RateLimited) as error:
            self.add_error("link" if is_link else "text", str(error))
            return None


def find_dataset(dataset_admin: DatasetAdmin, request: HttpRequest, object_id: str) -> Dataset | None:
    """Return the dataset, if there is one for this user. Raise PermissionDenied for those who may not fill any."""
    user: Any = request.user
    # The page lists collections, and what came of them.
    has_rights = user.has_perms(("datasets.add_collection", "datasets.view_collection"))
    if not (dataset_admin.has_view_permission(request) and has_rights):
        raise PermissionDenied
    found: Dataset | None = dataset_admin.get_object(request, object_id)
    return found


def import_view(dataset_admin: DatasetAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
    dataset = find_dataset(dataset_admin, request, object_id)
    if dataset is None:
        return dataset_admin._get_obj_does_not_exist_redirect(request, dataset_admin.opts, object_id)  # type: ignore[no-any-return]
    form = ImportForm(dataset, request.POST if request.method == "POST" else None)
    if form.is_valid():
        collection = form.apply()
        if collection is not None:
            message = _("“%(name)s” is being imported.") % {"name": collection.name}
            dataset_admin.message_user(request, message, messages.SUCCESS)
            return HttpResponseRedirect(request.path)
    latest = dataset.collections.filter(kind__in=(Kind.FILE, Kind.LINK, Kind.TEXT)).order_by("-pk")
    context = {
        **dataset_admin.admin_site.each_context(request),
        "title": _("Import"),
        "subtitle": str(dataset),
        "opts": dataset_admin.opts,
        "dataset": dataset,
        "form": form,
        "kinds": sorted(EXTENSIONS),
        "maximum_bytes": settings.DATASET_MAX_FILE_BYTES,
        "imports": progress_of(latest[:SHOWN]),
        "file_url": f"{FILE_PATH}?teamId={dataset.team_id}",
        "state_url": reverse("admin:datasets_dataset_import_state", args=[dataset.pk]),
    }
    return TemplateResponse(request, "admin/datasets/dataset/import.html", context)


def state_view(dataset_admin: DatasetAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
    dataset = find_dataset(dataset_admin, request, object_id)
    if dataset is None:
        raise Http404
    collection_ids = [one for one in request.GET.getlist("collection")[:ASKED] if is_object_id(one)]
    # Other datasets' collections are left out.
    return JsonResponse({"collections": progress_of(dataset.collections.filter(pk__in=collection_ids))})


def progress_of(collections: QuerySet[Any]) -> list[dict[str, Any]]:
    # It takes a few queries, however many collections there are.
    current = PendingVector.objects.filter(collection=OuterRef("pk"), vector_set__is_current=True)
    rows = counts.annotate_collections(collections).annotate(
        refused_count=counts.CountUpTo(current.filter(attempts__gte=MAXIMUM_ATTEMPTS))
    )
    return [state_of(row) for row in rows]


def state_of(collection: Any) -> dict[str, Any]:
    waiting = collection.waiting_count
    return {
        "id": collection.pk,
        "name": collection.name,
        "url": reverse("admin:datasets_collection_change", args=[collection.pk]),
        "waiting": waiting,
        "is_read": collection.state == ImportState.READY,
        # Nothing more will happen by itself.
        "is_over": collection.state == ImportState.FAILED or (collection.state == ImportState.READY and not waiting),
        "has_failed": collection.state == ImportState.FAILED,
        "text": progress_text(collection, waiting),
    }


def progress_text(collection: Any, waiting: int) -> str:
    if collection.state == ImportState.WAITING:
        return _("waiting to be read")
    if collection.state == ImportState.FAILED:
        return _("failed: %(reason)s") % {"reason": collection.failure}
    parts = [
        ngettext("%(count)s piece", "%(count)s pieces", collection.datum_count)
        % {"count": counts.text_of(collection.datum_count)}
    ]
    if collection.state == ImportState.READING:
        parts.insert(0, _("being read"))
    counts_and_texts = (
        (waiting, _("%(count)s are waiting for their vectors")),
        (collection.refused_count, _("%(count)s refused by the model")),
        (collection.repeated, _("%(count)s already there")),
        (collection.left_out, _("%(count)s left out")),
    )
    parts += [text % {"count": counts.text_of(count)} for count, text in counts_and_texts if count]
    return ", ".join(parts)
