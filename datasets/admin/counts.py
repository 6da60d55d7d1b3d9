"""How much there is in datasets and collections, for lists: counted no further than people read."""

from typing import Any

from django.db.models import IntegerField, OuterRef, QuerySet, Subquery

from apikeys.admin.long_lists import MAXIMUM_ROWS, MoreThan
from datasets.models import Collection, Datum, PendingVector, VectorSet


class CountUpTo(Subquery):
    """The number of a subquery's rows, MAXIMUM_ROWS + 1 at most."""

    template = "(SELECT count(*) FROM (%(subquery)s) AS counted)"
    output_field = IntegerField()

    def __init__(self, rows: QuerySet[Any]) -> None:
        super().__init__(rows.order_by().values("pk")[: MAXIMUM_ROWS + 1])


def up_to(rows: QuerySet[Any]) -> int:
    return rows.order_by().values("pk")[: MAXIMUM_ROWS + 1].count()


def text_of(count: int) -> str:
    return str(MoreThan(MAXIMUM_ROWS)) if count > MAXIMUM_ROWS else f"{count:,}"


def annotate_datasets(rows: QuerySet[Any]) -> QuerySet[Any]:
    current = VectorSet.objects.filter(dataset=OuterRef("pk"), is_current=True)
    counted: QuerySet[Any] = rows.annotate(
        collection_count=CountUpTo(Collection.objects.filter(dataset=OuterRef("pk"))),
        datum_count=CountUpTo(Datum.objects.filter(collection__dataset=OuterRef("pk"))),
        waiting_count=CountUpTo(PendingVector.objects.open().filter(vector_set__dataset=OuterRef("pk"))),
        current_model=Subquery(current.values("model")[:1]),
    )
    return counted


def annotate_collections(rows: QuerySet[Any]) -> QuerySet[Any]:
    # Only vectors that search would use are counted as waiting.
    waiting = PendingVector.objects.open().filter(collection=OuterRef("pk"), vector_set__is_current=True)
    data = Datum.objects.filter(collection=OuterRef("pk"))
    counted: QuerySet[Any] = rows.annotate(datum_count=CountUpTo(data), waiting_count=CountUpTo(waiting))
    return counted
