"""The look of the admin: its name, its colors, and a sidebar by task that shows what the user may see."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.paginator import InvalidPage
from django.http import Http404, HttpRequest, HttpResponse
from django.templatetags.static import static
from django.urls import reverse, reverse_lazy
from django.utils.translation import gettext_lazy as _

NAME = "FastGPT API keys"


def base_url(request: HttpRequest) -> str:
    return request.build_absolute_uri("/api")


def context(request: HttpRequest) -> dict[str, Any]:
    """Return what every page has. Colors are in a file: a style in the page would need a policy that allows it."""
    return {"base_url": base_url(request), "colors": {}, "release": release()}


def release() -> str:
    """Return the product and its version, as pages and logs name them."""
    return f"{NAME} {settings.VERSION}"


def search(request: HttpRequest) -> HttpResponse:
    try:
        return admin.site.search(request)  # type: ignore[attr-defined, no-any-return]
    except InvalidPage as error:
        raise Http404 from error


def file(path: str) -> Callable[[HttpRequest], str]:
    return lambda request: static(path)


def may_view(*permissions: str) -> Callable[[HttpRequest], bool]:
    return lambda request: bool(request.user.has_perms(permissions))


def is_superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_active and request.user.is_superuser)


def is_of_apps(request: HttpRequest) -> bool:
    return request.path.startswith(reverse("admin:chat_app_changelist")) and request.path != reverse(
        "admin:chat_app_try"
    )


def is_of_datasets(request: HttpRequest) -> bool:
    return request.path.startswith(reverse("admin:app_list", args=["datasets"]))


def page(title: Any, icon: str, model: str, permission: Callable[[HttpRequest], bool] | None = None) -> dict[str, Any]:
    app, _, name = model.partition(".")
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{name}_changelist"),
        "permission": permission or may_view(f"{app}.view_{name}"),
    }


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": NAME,
    "SITE_HEADER": NAME,
    "SITE_SYMBOL": "key",
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "GLOBAL_CALLBACK": "fastgpt_site.theme.context",
    "STYLES": [file("fastgpt_site/console.css")],
    "SCRIPTS": [
        file("apikeys/copy.js"),
        file("apikeys/select_labels.js"),
        file("fastgpt_site/timezone.js"),
        file("fastgpt_site/scrollbars.js"),
    ],
    # Searches pages, and the keys of the user's teams. Nothing of it is kept: see CACHES.
    "COMMAND": {"search_callback": "apikeys.admin.keys.search.search"},
    "SHOW_LANGUAGES": True,
    "LOGIN": {"form": "apikeys.sign_in.forms.SignInForm"},
    "DASHBOARD_CALLBACK": "fastgpt_site.admin.dashboard.add_figures",
    "SIDEBAR": {
        "show_search": True,
        "command_search": True,
        "show_all_applications": False,
        "navigation": [
            {
                "title": _("Access"),
                "items": [
                    {"title": _("Dashboard"), "icon": "dashboard", "link": reverse_lazy("admin:index")},
                    page(_("Keys"), "key", "apikeys.apikey"),
                    page(_("Limits"), "speed", "apikeys.limit"),
                    {
                        "title": _("Endpoints"),
                        "icon": "lan",
                        "link": reverse_lazy("admin:apikeys_endpointrule_inventory"),
                        "permission": may_view("apikeys.view_apikey"),
                    },
                ],
            },
            {
                "title": _("Applications"),
                "separator": True,
                "items": [
                    page(_("Apps"), "smart_toy", "chat.app") | {"active": is_of_apps},
                    {
                        "title": _("Try it"),
                        "icon": "chat",
                        "link": reverse_lazy("admin:chat_app_try"),
                        "permission": may_view("chat.view_app", "chat.try_app"),
                    },
                    page(_("Datasets"), "library_books", "datasets.dataset") | {"active": is_of_datasets},
                    page(_("Models"), "deployed_code", "chat.catalogmodel"),
                    page(_("Providers"), "dns", "chat.provider"),
                    page(_("Conversations"), "forum", "chat.conversation"),
                ],
            },
            {
                "title": _("Activity"),
                "separator": True,
                "items": [
                    page(_("Usage"), "monitoring", "apikeys.usagerecord"),
                    page(_("Daily usage"), "calendar_month", "apikeys.dailyusage"),
                    page(_("Refusals"), "block", "apikeys.refusal"),
                    page(_("Alerts"), "notifications", "apikeys.alert"),
                    page(_("Audit"), "history", "apikeys.auditentry"),
                    page(_("Jobs"), "pending_actions", "procrastinate.procrastinatejob", is_superuser),
                ],
            },
            {
                "title": _("People"),
                "separator": True,
                "items": [
                    page(_("Teams"), "groups", "apikeys.team"),
                    page(_("Webhooks"), "webhook", "apikeys.webhook"),
                    page(_("Users"), "person", "auth.user", is_superuser),
                    page(_("Groups"), "badge", "auth.group", is_superuser),
                ],
            },
        ],
    },
}
