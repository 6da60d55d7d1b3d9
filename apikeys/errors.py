"""Every refusal of the API: its status, its two bodies in one, and its text.

ApiError
├── AuthenticationError   401  who calls is not known
├── AccessError           403  known, but may not
└── the rest, each its own status
"""

from typing import Any, ClassVar

import msgspec
from rest_framework.exceptions import APIException


class ApiError(APIException):
    """A refusal in the contract's shape. `code` and `status_text` are FastGPT's, `type` and `error_code` OpenAI's."""

    status: ClassVar[int] = 500
    code: ClassVar[int] = 500
    status_text: ClassVar[str] = "error"
    type: ClassVar[str] = "api_error"
    error_code: str = "internal_error"
    message: str = "Something went wrong on our side."
    retry_after: int | None = None

    def __init__(self, message: str | None = None, *, error_code: str | None = None, param: str | None = None) -> None:
        if message is not None:
            self.message = message
        if error_code is not None:
            self.error_code = error_code
        self.param = param
        super().__init__(self.message, self.error_code)
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
        return msgspec.json.encode(self.body())

    def headers(self) -> dict[str, str]:
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return headers


class AuthenticationError(ApiError):
    status, code, status_text, type = 401, 514, "unAuthApiKey", "authentication_error"


class MissingKey(AuthenticationError):
    code, status_text, error_code = 403, "unAuthorization", "missing_api_key"
    message = "No API key was given. Send it as: Authorization: Bearer <key>."


class MalformedKey(AuthenticationError):
    code, status_text, error_code = 403, "unAuthorization", "malformed_api_key"
    message = "The Authorization header is not of the form: Bearer <key>."


class InvalidKey(AuthenticationError):
    error_code, message = "invalid_api_key", "This API key is not valid."


class RevokedKey(AuthenticationError):
    error_code, message = "revoked_api_key", "This API key was revoked."


class RotatedKey(AuthenticationError):
    error_code = "rotated_api_key"
    message = "This secret was replaced when its API key was rotated. Use the new one."


class ExpiredKey(AuthenticationError):
    error_code = "expired_api_key"

    def __init__(self, last_four: str) -> None:
        super().__init__(f"Key ******{last_four} is expired")


class DisabledKey(AuthenticationError):
    error_code, message = "disabled_api_key", "This API key is disabled, or its owner or team is."


class AccessError(ApiError):
    status, code, status_text, type = 403, 403, "unAuthorization", "permission_error"


class AddressNotAllowed(AccessError):
    error_code, message = "ip_not_allowed", "This API key may not be used from your network."


class EndpointNotAllowed(AccessError):
    error_code, message = "endpoint_not_allowed", "This API key may not call this endpoint."


class HttpsRequired(AccessError):
    error_code, message = (
        "https_required",
        "This site can be reached over HTTPS only. Rotate any key that was sent without it.",
    )


class WrongKeyKind(AccessError):
    error_code = "wrong_key_kind"


class ModelNotAllowed(AccessError):
    code, status_text, error_code = 511, "unAuthModel", "model_not_allowed"


class StaffNotAllowed(AccessError):
    error_code, message = "permission_denied", "Your account does not have the permission that this endpoint requires."


class PasswordNeeded(AccessError):
    error_code = "password_needed"
    message = "You entered your password more than 15 minutes ago. Enter it again at /admin/confirm_password/ first."


class SignInNeeded(AccessError):
    error_code, message = "sign_in_needed", "You are no longer signed in. Reload this page."


class CsrfFailed(AccessError):
    error_code, message = "csrf_failed", "The CSRF token is missing or wrong."


class NotFound(ApiError):
    """Somebody else's and absent look alike."""

    status, type = 404, "not_found_error"


class AppNotFound(NotFound):
    code, status_text, error_code, message = 502000, "appUnExist", "appUnExist", "There is no such app."


class DatasetNotFound(NotFound):
    code, status_text, error_code = 501000, "unAuthDataset", "unAuthDataset"
    message = "There is no such dataset."


class CollectionNotFound(NotFound):
    code, status_text, error_code = 501001, "unAuthDatasetCollection", "unAuthDatasetCollection"
    message = "There is no such collection."


class DatumNotFound(NotFound):
    code, status_text, error_code = 501002, "unAuthDatasetData", "unAuthDatasetData"
    message = "There is no such data."


class KeyNotFound(NotFound):
    code, status_text, error_code, message = 506000, "openapiUnExist", "openapiUnExist", "There is no such API key."


class InvalidParameter(ApiError):
    status, code, status_text = 400, 400, "invalidParams"
    type, error_code = "invalid_request_error", "invalid_parameter"


class PathNotFound(ApiError):
    status, code, status_text = 404, 404, "notFound"
    type, error_code, message = "invalid_request_error", "not_found", "There is no endpoint at this path."


class MethodNotAllowed(ApiError):
    status, code, status_text = 405, 405, "methodNotAllowed"
    type, error_code = "invalid_request_error", "method_not_allowed"


class BodyTooSlow(ApiError):
    status, code, status_text = 408, 408, "invalidParams"
    type, error_code = "invalid_request_error", "request_timeout"
    message = "The request body did not arrive in time."


class BodyTooLarge(ApiError):
    status, code, status_text = 413, 413, "invalidParams"
    type, error_code = "invalid_request_error", "body_too_large"


class RateLimited(ApiError):
    """There is no room now, and there will be: in the next minute, or when requests under way have ended."""

    status, code, status_text = 429, 429, "rateLimited"
    type, error_code = "rate_limit_error", "rate_limit_exceeded"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InsufficientQuota(ApiError):
    """A budget is spent."""

    status, code, status_text = 429, 510, "insufficientQuota"
    type, error_code = "insufficient_quota", "insufficient_quota"

    def __init__(self, last_four: str, retry_after: int | None) -> None:
        super().__init__(f"Key ******{last_four} is over usage")
        self.retry_after = retry_after


class ServiceUnavailable(ApiError):
    status, code, status_text, error_code = 503, 503, "serviceUnavailable", "service_unavailable"
    message, retry_after = "The service cannot answer at the moment. Try again shortly.", 1


class TooManyUploads(ServiceUnavailable):
    message, retry_after = "Too many files are being uploaded at the moment. Try again shortly.", 5


class UpstreamError(ApiError):
    status, code, status_text, error_code = 502, 502, "upstreamError", "upstream_error"
    message = "The model's provider failed."


class UpstreamTimeout(UpstreamError):
    status, code, error_code = 504, 504, "upstream_timeout"
    message = "The model's provider did not answer in time."


class Rejected(ApiError):
    message = "The database rejected the content of the request or of its answer."


class InternalError(ApiError):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"Something went wrong on our side. Quote this request id: {request_id}")
