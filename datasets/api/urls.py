"""API paths of knowledge bases, each with and without a trailing slash: no POST is redirected."""

from django.urls import URLPattern, URLResolver, re_path

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

fastgpt: list[URLPattern | URLResolver] = [
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
]
