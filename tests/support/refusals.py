"""The one shape of refusals, which FastGPT's clients and OpenAI's both read."""

import httpx2

# The contract has them so: error.code: (HTTP status, code, statusText, error.type).
TABLE = {
    "missing_api_key": (401, 403, "unAuthorization", "authentication_error"),
    "malformed_api_key": (401, 403, "unAuthorization", "authentication_error"),
    "invalid_api_key": (401, 514, "unAuthApiKey", "authentication_error"),
    "revoked_api_key": (401, 514, "unAuthApiKey", "authentication_error"),
    "rotated_api_key": (401, 514, "unAuthApiKey", "authentication_error"),
    "expired_api_key": (401, 514, "unAuthApiKey", "authentication_error"),
    "disabled_api_key": (401, 514, "unAuthApiKey", "authentication_error"),
    "ip_not_allowed": (403, 403, "unAuthorization", "permission_error"),
    "endpoint_not_allowed": (403, 403, "unAuthorization", "permission_error"),
    "wrong_key_kind": (403, 403, "unAuthorization", "permission_error"),
    "permission_denied": (403, 403, "unAuthorization", "permission_error"),
    "https_required": (403, 403, "unAuthorization", "permission_error"),
    "csrf_failed": (403, 403, "unAuthorization", "permission_error"),
    "appUnExist": (404, 502000, "appUnExist", "not_found_error"),
    "previous_response_not_found": (404, 504000, "unAuthChat", "not_found_error"),
    "unAuthDataset": (404, 501000, "unAuthDataset", "not_found_error"),
    "unAuthDatasetCollection": (404, 501001, "unAuthDatasetCollection", "not_found_error"),
    "unAuthDatasetData": (404, 501002, "unAuthDatasetData", "not_found_error"),
    "openapiUnExist": (404, 506000, "openapiUnExist", "not_found_error"),
    "password_needed": (403, 403, "unAuthorization", "permission_error"),
    "model_not_allowed": (403, 511, "unAuthModel", "permission_error"),
    "invalid_parameter": (400, 400, "invalidParams", "invalid_request_error"),
    "body_too_large": (413, 413, "invalidParams", "invalid_request_error"),
    "unsupported_content_encoding": (415, 415, "invalidParams", "invalid_request_error"),
    "head_too_large": (431, 431, "invalidParams", "invalid_request_error"),
    "request_timeout": (408, 408, "invalidParams", "invalid_request_error"),
    "model_not_found": (404, 404, "modelNotFound", "not_found_error"),
    "not_found": (404, 404, "notFound", "invalid_request_error"),
    "rate_limit_exceeded": (429, 429, "rateLimited", "rate_limit_error"),
    "too_many_open_requests": (429, 429, "rateLimited", "rate_limit_error"),
    "insufficient_quota": (429, 510, "insufficientQuota", "insufficient_quota"),
    "method_not_allowed": (405, 405, "methodNotAllowed", "invalid_request_error"),
    "service_unavailable": (503, 503, "serviceUnavailable", "api_error"),
    "refused_by_provider": (400, 400, "invalidParams", "invalid_request_error"),
    "upstream_busy": (503, 503, "serviceUnavailable", "api_error"),
    "upstream_error": (502, 502, "upstreamError", "api_error"),
    "upstream_timeout": (504, 504, "upstreamError", "api_error"),
    "internal_error": (500, 500, "error", "api_error"),
}


def check_refusal(response: httpx2.Response, error_code: str, *, param: str | None = None) -> str:
    """Assert that the response is this refusal, in both shapes and with nothing else; return its message."""
    status, *_ = TABLE[error_code]
    assert response.status_code == status, response.text
    body = response.json()
    check_body(body, error_code, param=param)
    assert response.headers["content-type"] == "application/json"
    assert len(response.headers["x-request-id"]) == 24
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
    if status == 503:
        assert int(response.headers["retry-after"]) >= 1
    message: str = body["message"]
    return message


def check_body(body: dict[str, object], error_code: str, *, param: str | None = None) -> None:
    _, code, status_text, kind = TABLE[error_code]
    message = body["message"]
    assert isinstance(message, str)
    assert message
    assert body == {
        "code": code,
        "statusText": status_text,
        "message": message,
        "data": None,
        "error": {"message": message, "type": kind, "code": error_code, "param": param},
    }
