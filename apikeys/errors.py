"""Every refusal of the API: its status, its two bodies in one, its text, and its explanation for administrators.

ApiError
├── AuthenticationError   401  who calls is not known
├── AccessError           403  known, but may not
└── the rest, each its own status
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import APIException

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as StrOrPromise


class ApiError(APIException):
    """A refusal in the contract's shape. `code` and `status_text` are FastGPT's, `type` and `error_code` OpenAI's.

    `explanation` never reaches the caller: it says to administrators what became of the call and what helps. It belongs
    to `error_code`, so a subclass has both of its own or neither.
    """

    explanations: ClassVar[dict[str, StrOrPromise]] = {}

    status: ClassVar[int] = 500
    code: ClassVar[int] = 500
    status_text: ClassVar[str] = "error"
    type: ClassVar[str] = "api_error"
    error_code: ClassVar[str] = "internal_error"
    message: str = "Something went wrong on our side."
    explanation: ClassVar[StrOrPromise] = _(
        "This is a fault of the site, not of the caller. The site's log has the details under the request id."
    )
    retry_after: int | None = None
    # The provider's own words about it, which operators alone may read.
    failure: Any = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.explanations[cls.error_code] = cls.explanation

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        if message is not None:
            self.message = message
        self.param = param
        # APIException would make a translatable text of it, which costs more than all the rest of a refusal.
        Exception.__init__(self, self.message)
        self.detail = self.message  # type: ignore[assignment]
        self.status_code = self.status

    def body(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "statusText": self.status_text,
            "message": self.message,
            "data": None,
            "error": {"message": self.message, "type": self.type, "code": self.error_code, "param": self.param},
        }

    def json(self) -> bytes:
        kind = type(self)
        if self.param is not None or self.message is not kind.message:
            return msgspec.json.encode(self.body())
        # It says what its class says, as most do.
        body = _bodies.get(kind)
        if body is None:
            body = _bodies[kind] = msgspec.json.encode(self.body())
        return body

    def headers(self) -> dict[str, str]:
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.is_hopeless:
            # OpenAI's clients would try all of these again.
            headers["X-Should-Retry"] = "false"
        return headers

    @property
    def is_hopeless(self) -> bool:
        """Return whether the same request would be refused again, where its status does not say so."""
        return False


_bodies: dict[type[ApiError], bytes] = {}


class AuthenticationError(ApiError):
    status, code, status_text, type = 401, 514, "unAuthApiKey", "authentication_error"


class MissingKey(AuthenticationError):
    code, status_text, error_code = 403, "unAuthorization", "missing_api_key"
    message = "No API key was given. Send it as: Authorization: Bearer <key>."
    explanation = _("Every call needs the header Authorization: Bearer <key>.")


class MalformedKey(AuthenticationError):
    code, status_text, error_code = 403, "unAuthorization", "malformed_api_key"
    message = "The Authorization header is not of the form: Bearer <key>."
    explanation = _("The header must be Authorization: Bearer <key>, once.")


class InvalidKey(AuthenticationError):
    error_code, message = "invalid_api_key", "This API key is not valid."
    explanation = _("No key has this plaintext: it was mistyped, or never existed here.")


class RevokedKey(AuthenticationError):
    error_code, message = "revoked_api_key", "This API key was revoked."
    explanation = _("The key was revoked, for good. Its holder needs a new one.")


class RotatedKey(AuthenticationError):
    error_code = "rotated_api_key"
    message = "This secret was replaced when its API key was rotated. Use the new one."
    explanation = _(
        "This secret was replaced by rotation; the key lives on under its new one. Whoever still uses the old one "
        "missed the change, or should not have it."
    )


class ExpiredKey(AuthenticationError):
    error_code = "expired_api_key"
    explanation = _("The key has expired. An administrator can set a later expiry.")

    def __init__(self, last_four: str) -> None:
        super().__init__(f"Key ******{last_four} is expired")


class DisabledKey(AuthenticationError):
    error_code, message = "disabled_api_key", "This API key is disabled, or its owner or team is."
    explanation = _("The key, its owner or its team is disabled, or the owner has left the team.")


class AccessError(ApiError):
    status, code, status_text, type = 403, 403, "unAuthorization", "permission_error"


class AddressNotAllowed(AccessError):
    error_code, message = "ip_not_allowed", "This API key may not be used from your network."
    explanation = _("The key lists networks, and the caller's address lies in none of them.")


class EndpointNotAllowed(AccessError):
    error_code, message = "endpoint_not_allowed", "This API key may not call this endpoint."
    explanation = _("The endpoint takes no such key, a rule closed it, or the key's own list lacks it.")


class HttpsRequired(AccessError):
    error_code, message = (
        "https_required",
        "This site can be reached over HTTPS only. Rotate any key that was sent without it.",
    )
    explanation = _("The site is reached over HTTPS only. A key that was sent without it should be rotated.")


class WrongKeyKind(AccessError):
    error_code = "wrong_key_kind"
    explanation = _(
        "An app key talks to its own app; a global key does the rest. The message says which one this call needs."
    )


class ModelNotAllowed(AccessError):
    code, status_text, error_code = 511, "unAuthModel", "model_not_allowed"
    explanation = _("The key lists models, and the model that this call needs is not among them.")


class StaffNotAllowed(AccessError):
    error_code, message = "permission_denied", "Your account does not have the permission that this endpoint requires."
    explanation = _("A signed-in account called that lacks the permission. An administrator can grant it.")


class PasswordNeeded(AccessError):
    error_code = "password_needed"
    message = "You entered your password more than 15 minutes ago. Enter it again at /admin/confirm_password/ first."
    explanation = _(
        "Only staff who entered their password in the last 15 minutes can create or widen keys, or raise limits."
    )


class SignInNeeded(AccessError):
    error_code, message = "sign_in_needed", "You are no longer signed in. Reload this page."
    explanation = _("The session has ended. The account has to sign in again and load the page anew.")


class CsrfFailed(AccessError):
    error_code, message = "csrf_failed", "The CSRF token is missing or wrong."
    explanation = _(
        "The call used a session cookie without its CSRF token, or came from another site. Reloading the page helps. "
        "A program sends the value of the cookie csrftoken in the header X-CSRFToken."
    )


class NotFound(ApiError):
    """Somebody else's and absent look alike."""

    status, type = 404, "not_found_error"


class AppNotFound(NotFound):
    code, status_text, error_code, message = 502000, "appUnExist", "appUnExist", "There is no such app."
    explanation = _("The team has no such app, or it is archived.")


class ModelNotFound(NotFound):
    code, status_text, error_code, message = 404, "modelNotFound", "model_not_found", "There is no such model."
    explanation = _("The key may name no model of this name. GET v1/models lists those that it may.")


class ResponseNotFound(NotFound):
    code, status_text, error_code = 504000, "unAuthChat", "previous_response_not_found"
    message = "There is no such response, or it was not stored."
    explanation = _(
        "The app has no response with this id: it was not stored, its conversation was deleted, or it belongs to "
        "another app."
    )


class DatasetNotFound(NotFound):
    code, status_text, error_code = 501000, "unAuthDataset", "unAuthDataset"
    message = "There is no such dataset."
    explanation = _("The team has no dataset with this id. It was deleted, or belongs to another team.")


class CollectionNotFound(NotFound):
    code, status_text, error_code = 501001, "unAuthDatasetCollection", "unAuthDatasetCollection"
    message = "There is no such collection."
    explanation = _("The team has no collection with this id. It was deleted, or belongs to another team.")


class DatumNotFound(NotFound):
    code, status_text, error_code = 501002, "unAuthDatasetData", "unAuthDatasetData"
    message = "There is no such data."
    explanation = _("The team has no data with this id. It was deleted, or belongs to another team.")


class KeyNotFound(NotFound):
    code, status_text, error_code, message = 506000, "openapiUnExist", "openapiUnExist", "There is no such API key."
    explanation = _("The team has no key with this id: it was revoked, belongs to another team, or never existed.")


class InvalidParameter(ApiError):
    status, code, status_text = 400, 400, "invalidParams"
    type, error_code = "invalid_request_error", "invalid_parameter"
    explanation = _("The request itself was wrong. The caller has to correct what the message names.")


class MalformedRequest(InvalidParameter):
    """The request is not valid HTTP, or two servers could read it differently."""


class PathNotFound(ApiError):
    status, code, status_text = 404, 404, "notFound"
    type, error_code, message = "invalid_request_error", "not_found", "There is no endpoint at this path."
    explanation = _("No endpoint has this path. Most often the client's base URL is wrong: it ends in /api.")


class MethodNotAllowed(ApiError):
    status, code, status_text = 405, 405, "methodNotAllowed"
    type, error_code = "invalid_request_error", "method_not_allowed"
    explanation = _("The endpoint exists, but not for this HTTP method. The message lists those that it takes.")

    def __init__(self, method: str, methods: list[str], allowed: list[str]) -> None:
        super().__init__(f"This endpoint answers {', '.join(methods)}, not {method}.")
        self.allowed = allowed

    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(self.allowed)}


class BodyTooSlow(ApiError):
    status, code, status_text = 408, 408, "invalidParams"
    type, error_code = "invalid_request_error", "request_timeout"
    message = "The request body did not arrive in time."
    explanation = _(
        "The request arrived too slowly for HEAD_SECONDS or API_BODY_SECONDS. A slow network or proxy of the caller is "
        "the usual cause."
    )


class HeadTooSlow(BodyTooSlow):
    message = "The request's head did not arrive in time."


class HeadTooLarge(ApiError):
    status, code, status_text = 431, 431, "invalidParams"
    type, error_code = "invalid_request_error", "head_too_large"
    message = "The request's head is larger than 64 KiB."
    explanation = _("The request's headers, or its address, were larger than 64 KiB. Cookies are the usual cause.")


class BodyTooLarge(ApiError):
    status, code, status_text = 413, 413, "invalidParams"
    type, error_code = "invalid_request_error", "body_too_large"
    explanation = _(
        "The body was larger than API_MAX_BODY_BYTES (COMPLETIONS_MAX_BODY_BYTES or EMBEDDINGS_MAX_BODY_BYTES at those "
        "endpoints), or the file larger than DATASET_MAX_FILE_BYTES: site settings."
    )


class UnsupportedCoding(ApiError):
    status, code, status_text = 415, 415, "invalidParams"
    type, error_code = "invalid_request_error", "unsupported_content_encoding"
    message = "The body's Content-Encoding is not supported. Send gzip, deflate, or none."
    explanation = _("The body was compressed in a way that is not read here. The client should use gzip, or nothing.")

    def headers(self) -> dict[str, str]:
        return {"Accept-Encoding": "gzip, deflate"}


class RateLimited(ApiError):
    """There is no room now, and there will be: in the next minute, or when requests under way have ended."""

    status, code, status_text = 429, 429, "rateLimited"
    type, error_code = "rate_limit_error", "rate_limit_exceeded"
    explanation = _("The limit was full at that moment. A later try fits: Retry-After said when.")

    def __init__(self, message: str, retry_after: int, *, is_hopeless: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self._is_hopeless = is_hopeless

    @property
    def is_hopeless(self) -> bool:
        return self._is_hopeless


class TooManyOpenRequests(RateLimited):
    """So many requests of one key are under way in one server process that others might find no room."""

    error_code = "too_many_open_requests"
    explanation = _(
        "The key had as many requests under way as MAX_OPEN_REQUESTS_PER_KEY allows in one server process. A later try "
        "fits, when some of them have ended."
    )

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} requests of this API key are under way. Wait until some of them have ended.", 5)


class InsufficientQuota(ApiError):
    """A budget is spent."""

    status, code, status_text = 429, 510, "insufficientQuota"
    type, error_code = "insufficient_quota", "insufficient_quota"
    explanation = _(
        "Too little is left of the budget for this request. A higher budget helps, or the start of its next period."
    )

    def __init__(self, last_four: str, shortage: str, retry_after: int | None) -> None:
        # It begins with FastGPT's own sentence.
        super().__init__(f"Key ******{last_four} is over usage. {shortage}")
        self.retry_after = retry_after

    @property
    def is_hopeless(self) -> bool:
        return True


class ServiceUnavailable(ApiError):
    status, code, status_text, error_code = 503, 503, "serviceUnavailable", "service_unavailable"
    message, retry_after = "The service cannot answer at the moment. Try again shortly.", 1
    explanation = _(
        "The database was out of reach, or too much was waiting. Callers should try again, as Retry-After said."
    )


class TooManyConnections(ServiceUnavailable):
    message, retry_after = "Too many connections are open at the moment. Try again shortly.", 5


class TooManyBodies(ServiceUnavailable):
    message, retry_after = "Too many large requests are being answered at the moment. Try again shortly.", 5


class TooManyUploads(ServiceUnavailable):
    message, retry_after = "Too many files are being uploaded at the moment. Try again shortly.", 5


class TooManyLargeBodies(ServiceUnavailable):
    message, retry_after = "Too many large requests are being processed at the moment. Try again shortly.", 5


class UpstreamError(ApiError):
    status, code, status_text, error_code = 502, 502, "upstreamError", "upstream_error"
    message = "The model's provider failed."
    explanation = _(
        "The model's provider failed, or refused this site's own request. Its status, code and message are on the "
        "usage record."
    )

    @property
    def is_hopeless(self) -> bool:
        status = None if self.failure is None else self.failure.status
        return status is not None and 400 <= status < 500 and status not in (408, 409, 425)


class UpstreamTimeout(UpstreamError):
    status, code, error_code = 504, 504, "upstream_timeout"
    message = "The model's provider did not answer in time."
    explanation = _("The model's provider took too long. Its time limits are set in the admin.")


class Rejected(ApiError):
    message = "The database rejected the content of the request or of its answer."


class InternalError(ApiError):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"Something went wrong on our side. Quote this request id: {request_id}")


class UpstreamBusy(ServiceUnavailable):
    error_code = "upstream_busy"
    message = "The model's provider has too much to do. Try again later."
    explanation = _(
        "The model's provider answered that it is busy, or that this site's own account with it has reached a limit."
    )

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


class RefusedByProvider(InvalidParameter):
    """The provider refused what the caller sent. The body has the provider's code; logs and metrics have ours."""

    error_code = "refused_by_provider"
    explanation = _(
        "The model's provider refused what the caller sent, such as a text that is too long. The message has its own "
        "words, and the usage record its status and code."
    )

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.provider_code = code

    def body(self) -> dict[str, Any]:
        body = super().body()
        body["error"]["code"] = self.provider_code or self.error_code
        return body
