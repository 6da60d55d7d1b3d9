"""Pages of lists: which part of the rows a call asks for, in FastGPT's words."""

from typing import Annotated, Any

import msgspec
from django.db.models import QuerySet

MAXIMUM_ROWS = 100
# No list is so long, and PostgreSQL counts so far.
LAST = 1_000_000_000

SearchText = Annotated[str, msgspec.Meta(max_length=1_000)]


class Page(msgspec.Struct):
    """Base of what lists take. `offset` wins over `pageNum`, which counts from 1."""

    offset: Annotated[int, msgspec.Meta(ge=0, le=LAST)] | None = None
    pageNum: Annotated[int, msgspec.Meta(ge=1, le=LAST)] | None = None
    pageSize: Annotated[int, msgspec.Meta(ge=1, le=LAST)] | None = None

    @property
    def size(self) -> int:
        return min(self.pageSize or 10, MAXIMUM_ROWS)

    @property
    def start(self) -> int:
        return self.offset if self.offset is not None else ((self.pageNum or 1) - 1) * self.size

    def of(self, rows: QuerySet[Any]) -> list[Any]:
        return list(rows[self.start : self.start + self.size])

    def represent(self, items: list[dict[str, Any]], total: int) -> dict[str, Any]:
        return {"list": items, "total": total}

    def represent_numbered(self, items: list[dict[str, Any]], total: int) -> dict[str, Any]:
        # The lists without a version answer so, for older clients.
        return {
            "pageNum": self.start // self.size + 1,
            "pageSize": self.size,
            "data": items,
            "list": items,
            "total": total,
        }
