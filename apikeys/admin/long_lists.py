"""Lists of the admin that cost the same however many rows there are."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext

from apikeys.admin.scope import CheckedList

if TYPE_CHECKING:
    AnyPaginator = Paginator[Any]
else:
    AnyPaginator = Paginator

# So many rows are counted and can be leafed through. What lies beyond is found by filters and search.
MAXIMUM_ROWS = 10_000
# Each word of a search is a condition more in its query. Of the others nobody is told: people do not type so many.
MAXIMUM_WORDS = 8


def words(search_term: str) -> list[str]:
    """Those that are searched for."""
    return search_term.split()[:MAXIMUM_WORDS]


class MoreThan(int):
    """A count that was not carried to its end, as people read it."""

    def __str__(self) -> str:
        return gettext("more than %(count)s") % {"count": f"{int(self):,}"}


class BoundedPaginator(AnyPaginator):
    @cached_property
    def count(self) -> int:
        # Bare keys without order: neither joins nor subqueries for columns that nobody sees.
        rows = self.object_list.order_by().values("pk")  # type: ignore[attr-defined]
        counted: int = rows[: MAXIMUM_ROWS + 1].count()
        return counted if counted <= MAXIMUM_ROWS else MoreThan(MAXIMUM_ROWS)


class LongChangeList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        """Find the page's rows by their keys first, then read those rows: columns cost for one page alone.

        In one query the planner would rather make ready what a column needs of every row of its table.
        """
        super().get_results(request)
        keys = list(self.result_list.values_list("pk", flat=True))
        rows = self.model_admin.rows_of_page(self.root_queryset.filter(pk__in=keys))  # type: ignore[attr-defined]
        if not rows.query.select_related:
            rows = self.apply_select_related(rows)
        found = {row.pk: row for row in rows}
        self.result_list = [found[key] for key in keys if key in found]


class LongList(CheckedList):
    """A list that may have millions of rows."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LongChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return super().get_search_results(request, queryset, " ".join(words(search_term)))

    def rows_of_page(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """The rows of one page, with what their columns need."""
        return rows
