"""API paths of keys, each with and without a trailing slash: no POST is redirected."""

from django.urls import URLPattern, URLResolver, re_path

from apikeys.api.billing import BillingSubscriptionView, BillingUsageView
from apikeys.api.key_management import KeyCreateView, KeyDeleteView, KeyListView, KeyUpdateView
from apikeys.api.key_self import KeySelfView

# Clients ask for them with and without the version.
billing: list[URLPattern | URLResolver] = [
    re_path(r"^dashboard/billing/subscription/?$", BillingSubscriptionView.as_view()),
    re_path(r"^dashboard/billing/usage/?$", BillingUsageView.as_view()),
]
v1: list[URLPattern | URLResolver] = [
    re_path(r"^key/?$", KeySelfView.as_view()),
    *billing,
]
fastgpt: list[URLPattern | URLResolver] = [
    re_path(r"^support/openapi/create/?$", KeyCreateView.as_view()),
    re_path(r"^support/openapi/list/?$", KeyListView.as_view()),
    re_path(r"^support/openapi/update/?$", KeyUpdateView.as_view()),
    re_path(r"^support/openapi/delete/?$", KeyDeleteView.as_view()),
    *billing,
]
