"""Responses to exceptions of API views, in the contract's one shape."""

import logging
from functools import lru_cache
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.views import defaults
from rest_framework.exceptions import APIException

from apikeys.access.endpoints import is_api_path
from apikeys.api.answers import JSON, Answer
from apikeys.errors import (
    ApiError,
    BodyTooLarge,
    InternalError,
    InvalidParameter,
    PathNotFound,
    ServiceUnavailable,
    StaffNotAllowed,
)
from apikeys.hot_path.trace import Trace, trace_of

logger = logging.getLogger(__name__)


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse:
    return respond(error, trace_of(context["request"]._request))


def respond(error: Exception, trace: Trace) -> HttpResponse:
    """Return what Django and Django REST framework respond to this."""
    refusal = note_refusal(error, trace)
    return HttpResponse(
        refusal.json(), status=refusal.status, content_type="application/json", headers=refusal.headers()
    )


def answer_to(error: Exception, trace: Trace) -> Answer:
    """Return what the hot path answers to this: the same as `respond`."""
    refusal = note_refusal(error, trace)
    return Answer(refusal.json(), refusal.status, _encoded(tuple(refusal.headers().items())))


@lru_cache(maxsize=64)
def _encoded(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[bytes, bytes], ...]:
    return *JSON, *((name.lower().encode(), value.encode()) for name, value in headers)


def note_refusal(error: Exception, trace: Trace) -> ApiError:
    # Its traceback would hold the request, which would hold it.
    refusal = as_api_error(error, trace).with_traceback(None)
    trace.error_code = refusal.error_code
    trace.refusal = refusal
    return refusal


def as_api_error(error: Exception, trace: Trace) -> ApiError:
    """Return the refusal that stands for an exception; an unforeseen one is logged and becomes a 500 without detail."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Http404):
        return PathNotFound()
    if isinstance(error, PermissionDenied):
        return StaffNotAllowed()
    if isinstance(error, RequestDataTooBig):
        return BodyTooLarge("The request body is too large.")
    if isinstance(error, OperationalError | InterfaceError):
        logger.warning("the database cannot be reached: %s", type(error).__name__)
        return ServiceUnavailable()
    if isinstance(error, APIException) and 400 <= error.status_code < 500:
        return InvalidParameter(str(error.detail))
    logger.error("request %s failed", trace.request_id, exc_info=error)
    return InternalError(trace.request_id)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what Django refuses before any view, such as an unknown Host."""
    if is_api_path(request.path):
        return respond(
            InvalidParameter("The request is malformed, or names a host that is not served here."), trace_of(request)
        )
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    if is_api_path(request.path):
        trace = trace_of(request)
        return respond(InternalError(trace.request_id), trace)
    return defaults.server_error(request)
