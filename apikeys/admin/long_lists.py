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

# So many rows are counted and paged through. Filters and search find those beyond.
MAXIMUM_ROWS = 10_000
# Each word of a search adds a condition to its query. More words are ignored silently: people do not type so many.
MAXIMUM_WORDS = 8


def words(search_term: str) -> list[str]:
    return search_term.split()[:MAXIMUM_WORDS]


class MoreThan(int):
    """A count that stopped at its maximum, shown as "more than" it."""

    def __str__(self) -> str:
        return gettext("more than %(count)s") % {"count": f"{int(self):,}"}


class BoundedPaginator(AnyPaginator):
    @cached_property
    def count(self) -> int:
        # Bare keys without order need neither joins nor subqueries for columns that nobody sees.
        rows = self.object_list.order_by().values("pk")  # type: ignore[attr-defined]
        counted: int = rows[: MAXIMUM_ROWS + 1].count()
        return counted if counted <= MAXIMUM_ROWS else MoreThan(MAXIMUM_ROWS)


class LongChangeList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        # The page's keys are found first, then their rows are read: columns cost for one page alone. In one query the
        # planner would rather prepare what a column needs for every row of its table.
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
        """Return the rows of one page with all that their columns read. Subclasses override this."""
        return rows
