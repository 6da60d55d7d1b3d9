"""Every address of the site. What stands under an API root declares its policy, or the server does not start."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView

from apikeys.api.key_management import KeyCreateView, KeyDeleteView, KeyListView, KeyUpdateView
from apikeys.api.key_self import KeySelfView
from apikeys.api.unknown_paths import BaseUrlView, UnknownPathView
from apikeys.sign_in.reauthentication import change_password, confirm_password
from chat.api.completions import AppListView, CompletionsView, ModelListView
from chat.api.embeddings import EmbeddingsView
from datasets.api.collections import (
    CollectionCreateView,
    CollectionDeleteView,
    CollectionDetailView,
    CollectionListV2View,
    CollectionListView,
    CollectionUpdateView,
)
from datasets.api.data import (
    DataListV2View,
    DataListView,
    DataPushView,
    DatumDeleteView,
    DatumDetailView,
    DatumInsertView,
    DatumUpdateView,
)
from datasets.api.datasets import (
    DatasetCreateView,
    DatasetDeleteView,
    DatasetDetailView,
    DatasetListView,
    DatasetUpdateView,
)
from datasets.api.imports import CreateFromFileView, CreateFromLinkView, CreateFromTextView
from datasets.api.search import SearchTestView
from fastgpt_site.observability.health import healthz, readyz
from fastgpt_site.observability.metrics import metrics
from fastgpt_site.theme import search

# Each path with and without a trailing slash, so that no POST is redirected.
v1 = [
    re_path(r"^chat/completions/?$", CompletionsView.as_view()),
    re_path(r"^embeddings/?$", EmbeddingsView.as_view()),
    re_path(r"^models/?$", ModelListView.as_view()),
    re_path(r"^key/?$", KeySelfView.as_view()),
]
fastgpt = [
    re_path(r"^core/app/list/?$", AppListView.as_view()),
    re_path(r"^core/dataset/create/?$", DatasetCreateView.as_view()),
    re_path(r"^core/dataset/list/?$", DatasetListView.as_view()),
    re_path(r"^core/dataset/detail/?$", DatasetDetailView.as_view()),
    re_path(r"^core/dataset/update/?$", DatasetUpdateView.as_view()),
    re_path(r"^core/dataset/delete/?$", DatasetDeleteView.as_view()),
    re_path(r"^core/dataset/collection/create/?$", CollectionCreateView.as_view()),
    re_path(r"^core/dataset/collection/create/text/?$", CreateFromTextView.as_view()),
    re_path(r"^core/dataset/collection/create/link/?$", CreateFromLinkView.as_view()),
    re_path(r"^core/dataset/collection/create/localFile/?$", CreateFromFileView.as_view()),
    re_path(r"^core/dataset/collection/list/?$", CollectionListView.as_view()),
    re_path(r"^core/dataset/collection/listV2/?$", CollectionListV2View.as_view()),
    re_path(r"^core/dataset/collection/detail/?$", CollectionDetailView.as_view()),
    re_path(r"^core/dataset/collection/update/?$", CollectionUpdateView.as_view()),
    re_path(r"^core/dataset/collection/delete/?$", CollectionDeleteView.as_view()),
    re_path(r"^core/dataset/data/pushData/?$", DataPushView.as_view()),
    re_path(r"^core/dataset/data/insertData/?$", DatumInsertView.as_view()),
    re_path(r"^core/dataset/data/list/?$", DataListView.as_view()),
    re_path(r"^core/dataset/data/v2/list/?$", DataListV2View.as_view()),
    re_path(r"^core/dataset/data/detail/?$", DatumDetailView.as_view()),
    re_path(r"^core/dataset/data/update/?$", DatumUpdateView.as_view()),
    re_path(r"^core/dataset/data/delete/?$", DatumDeleteView.as_view()),
    re_path(r"^core/dataset/searchTest/?$", SearchTestView.as_view()),
    re_path(r"^support/openapi/create/?$", KeyCreateView.as_view()),
    re_path(r"^support/openapi/list/?$", KeyListView.as_view()),
    re_path(r"^support/openapi/update/?$", KeyUpdateView.as_view()),
    re_path(r"^support/openapi/delete/?$", KeyDeleteView.as_view()),
]

handler400 = "fastgpt_site.http.errors.bad_request"
handler500 = "fastgpt_site.http.errors.server_error"

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", healthz),
    path("readyz", readyz),
    path("metrics", metrics),
    path("api/v1/", include(v1)),
    path("api/openapi/v1/", include(v1)),
    path("v1/", include(v1)),
    path("api/", include(fastgpt)),
    re_path(r"^api/?$", BaseUrlView.as_view()),
    re_path(r"^api/", UnknownPathView.as_view()),
    re_path(r"^v1/?$", BaseUrlView.as_view()),
    re_path(r"^v1/", UnknownPathView.as_view()),
    path("admin/confirm_password/", admin.site.admin_view(confirm_password), name="confirm_password"),
    path("admin/search/", admin.site.admin_view(search)),
    # Before the admin's own, which tries passwords without end.
    path("admin/password_change/", admin.site.admin_view(change_password)),
    path("admin/", admin.site.urls),
    path("i18n/", include("django.conf.urls.i18n")),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]
