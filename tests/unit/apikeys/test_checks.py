"""A route that does not declare its callers stops the server, and so do impossible settings."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path

from apikeys.access.declarations import PUBLIC
from apikeys.api.views import ApiView
from apikeys.checks import check_retention, check_routes
from datasets.checks import LEAST, MOST, check_index_memory
from datasets.vectors import indexes
from tests.environment import PROJECT

urlpatterns: list[Any] = []


def function_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class Undeclared(ApiView):
    pass


class NoPermission(ApiView):
    endpoint = "x"
    api_key_access = frozenset()


class WrongAccess(ApiView):
    endpoint = "x"
    api_key_access = {"app"}  # type: ignore[assignment]
    staff_permission = None


class Declared(ApiView):
    endpoint = "x"
    api_key_access = frozenset()
    staff_permission = PUBLIC


@pytest.mark.parametrize("view", [function_view, Undeclared.as_view(), NoPermission.as_view(), WrongAccess.as_view()])
def test_an_undeclared_route_is_an_error(settings: Any, view: Any) -> None:
    settings.ROOT_URLCONF = __name__
    urlpatterns[:] = [path("api/x", view)]
    (error,) = check_routes()
    assert error.id == "apikeys.E001"
    assert "api/x" in str(error)


def test_a_declared_route_is_not(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    urlpatterns[:] = [path("api/x", Declared.as_view())]
    assert check_routes() == []


def test_what_is_not_under_an_api_root_needs_no_declaration(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    urlpatterns[:] = [path("elsewhere", function_view)]
    assert check_routes() == []


@pytest.mark.parametrize(("days", "count"), [(0, 0), (32, 0), (31, 1), (-1, 1)])
def test_days_of_retention(settings: Any, days: int, count: int) -> None:
    settings.RETENTION_DAYS = days
    assert len(check_retention()) == count


@pytest.mark.parametrize(("size", "count"), [(LEAST, 0), (MOST, 0), (LEAST - 1, 1), (MOST + 1, 1), (0, 1)])
def test_memory_for_indexes(settings: Any, size: int, count: int) -> None:
    settings.VECTOR_INDEX_MEMORY_BYTES = size
    assert len(check_index_memory()) == count
    if count == 0:
        # The database accepts each size that the check accepts.
        indexes.build_missing()


def test_the_server_does_not_start(tmp_path: Path) -> None:
    program = "from django.conf import settings; settings.ROOT_URLCONF = 'undeclared'\nimport fastgpt_site.asgi\n"
    (tmp_path / "undeclared.py").write_text(
        "from django.http import HttpResponse\nfrom django.urls import path\n"
        "urlpatterns = [path('v1/open', lambda request: HttpResponse())]\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{PROJECT}:{tmp_path}",
        "DJANGO_SETTINGS_MODULE": "fastgpt_site.settings",
    }
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode != 0
    assert "v1/open" in result.stderr
