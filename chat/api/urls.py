"""API paths of apps, conversations and models, each with and without a trailing slash: no POST is redirected."""

from django.urls import URLPattern, URLResolver, re_path

from chat.api.completions import CompletionsView
from chat.api.embeddings import EmbeddingsView
from chat.api.listings import AppListView, ModelListView
from chat.api.rerank import RerankView
from chat.api.responses import ResponsesView
from chat.api.text_completions import TextCompletionsView

v1: list[URLPattern | URLResolver] = [
    re_path(r"^chat/completions/?$", CompletionsView.as_view()),
    re_path(r"^completions/?$", TextCompletionsView.as_view()),
    re_path(r"^embeddings/?$", EmbeddingsView.as_view()),
    re_path(r"^models/?$", ModelListView.as_view()),
    re_path(r"^models/(?P<model_id>[^/].*?)/?$", ModelListView.as_view()),
    re_path(r"^rerank/?$", RerankView.as_view()),
    re_path(r"^responses/?$", ResponsesView.as_view()),
]
fastgpt: list[URLPattern | URLResolver] = [
    re_path(r"^core/app/list/?$", AppListView.as_view()),
]
