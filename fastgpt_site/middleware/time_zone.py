"""The viewer's time zone, which the browser tells; Django itself decides the language."""

import zoneinfo
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

# static/fastgpt_site/timezone.js writes this cookie.
COOKIE = "timezone"
LONGEST_NAME = 64


class ViewerTimeZone:
    """Times on a page are the viewer's: of the zone in the cookie, if there is such a zone, otherwise TIME_ZONE's."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        zone = known_zone(request.COOKIES.get(COOKIE, ""))
        if zone is None:
            return self.get_response(request)
        with timezone.override(zone):
            return self.get_response(request)


def known_zone(name: str) -> zoneinfo.ZoneInfo | None:
    if not name or len(name) > LONGEST_NAME:
        return None
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None
