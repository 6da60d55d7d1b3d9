"""Every address of the site. A route under an API root declares its policy, or the server does not start."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView

from apikeys.api import urls as apikeys_urls
from apikeys.api.unknown_paths import BaseUrlView, UnknownPathView
from apikeys.sign_in.reauthentication import change_password, confirm_password
from chat.api import urls as chat_urls
from datasets.api import urls as datasets_urls
from fastgpt_site.observability.exposition import metrics
from fastgpt_site.observability.health import healthz, readyz
from fastgpt_site.theme import search

admin.autodiscover()

v1 = [*chat_urls.v1, *apikeys_urls.v1]
fastgpt = [*chat_urls.fastgpt, *datasets_urls.fastgpt, *apikeys_urls.fastgpt]

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
