import json
from email.utils import formatdate
from time import time
from typing import Any

import pytest

from apikeys.errors import RefusedByProvider, UpstreamBusy
from apikeys.outbound.error_answers import MAX_MESSAGE, clean, error_of, failure_in, failure_of

SECRET = "sk-the-secret-of-the-provider"
URL = "https://models.example.com:8443/v1"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"error": {"message": "a", "code": "b", "type": "c"}}, "b", "a"),
        ({"error": {"message": "a", "code": None, "type": "c"}}, "c", "a"),
        ({"error": {"message": "a", "code": 400, "status": "D"}}, "D", "a"),
        ({"error": "a"}, "", "a"),
        ({"error": "a", "code": "b"}, "b", "a"),
        ({"detail": "a"}, "", "a"),
        ({"detail": [{"msg": "a"}]}, "", '[{"msg":"a"}]'),
        ({"message": "a", "code": "b"}, "b", "a"),
        ([{"error": {"message": "a"}}], "", "a"),
        ({"error": {"message": "a", "code": "no code\n"}}, "", "a"),
        ({"error": 7}, "", ""),
        ([], "", ""),
        ("x", "", ""),
    ],
)
def test_the_usual_forms(body: Any, code: str, message: str) -> None:
    failure = failure_of(400, json.dumps(body).encode(), hidden=[SECRET], base_url=URL)
    assert (failure.what, failure.status, failure.code, failure.message) == ("HTTP 400", 400, code, message)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"[" * 100_000, b"\xff\xfe"])
def test_what_is_no_json_says_nothing(body: bytes) -> None:
    failure = failure_of(500, body, hidden=[], base_url=URL)
    assert str(failure) == "HTTP 500"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (f"wrong key {SECRET}!", "wrong key ...!"),
        ("Bearer abc", "..."),
        ("see https://x.example/a?b=c now", "see ... now"),
        ("see HTTP://x.example now", "see ... now"),
        ("at 10.0.0.1:8000, 192.168.1.1", "at ..., ..."),
        ("at models.example.com", "at ..."),
        ("org-0123456789abcdefghij", "..."),
        ("provided: sk-abcd********wxyz.", "provided: ..."),
        ("AKIAIOSFODNN7EXAMPLE and AIzaSyD-0123456789abcdef", "... and ..."),
        ("0123456789abcdef0123456789abcdef", "..."),
        ("dial tcp [::1]:8080: refused", "dial tcp ...: refused"),
        ("dial tcp models.internal.svc:8080: refused", "dial tcp ...: refused"),
        ("claude-3-5-sonnet-20241022 is not known", "claude-3-5-sonnet-20241022 is not known"),
        ("at most 4096, not 1.5:20", "at most 4096, not 1.5:20"),
        ("a\n\tb\0", "a b\ufffd"),
        ("8192 tokens in context_length_exceeded_by_far", "8192 tokens in context_length_exceeded_by_far"),
    ],
)
def test_no_address_and_no_secret_is_kept(text: str, cleaned: str) -> None:
    assert clean(text, SECRET, "models.example.com") == cleaned


def test_a_text_is_cut() -> None:
    assert len(clean("word " * 1000)) == MAX_MESSAGE


def test_an_error_in_an_answer_may_say_its_status() -> None:
    error = error_of(failure_in({"code": 429, "message": "slow down"}, hidden=[], base_url=URL), "3")
    assert isinstance(error, UpstreamBusy)
    assert error.retry_after == 3


@pytest.mark.parametrize("error", [None, 7, [], {}, {"code": 7}, {"code": 10**30}, "x"])
def test_an_error_of_any_form_is_one(error: Any) -> None:
    assert error_of(failure_in(error, hidden=[], base_url=URL)).status == 502


def test_a_date_of_retry_after() -> None:
    failure = failure_of(503, b"", hidden=[], base_url=URL)
    retry_after = error_of(failure, formatdate(time() + 30, usegmt=True)).retry_after
    assert retry_after is not None
    assert 28 <= retry_after <= 31


@pytest.mark.parametrize("retry_after", ["", "soon", "-1", "1.5", "Mon, 99 Foo 99999 99:99:99 GMT", "9" * 5000])
def test_a_retry_after_that_says_nothing(retry_after: str) -> None:
    assert error_of(failure_of(503, b"", hidden=[], base_url=URL), retry_after).retry_after == 1


def test_a_code_that_may_be_a_secret_is_none() -> None:
    body = b'{"error": {"message": "a", "code": "sk-0123456789abcdef"}}'
    assert failure_of(400, body, hidden=[], base_url=URL).code == ""


def test_the_body_has_the_providers_code_and_logs_have_ours() -> None:
    error = error_of(failure_of(400, b'{"error": {"message": "a", "code": "b"}}', hidden=[], base_url=URL))
    assert isinstance(error, RefusedByProvider)
    assert error.error_code == "refused_by_provider"
    assert json.loads(error.json())["error"] == {
        "message": "a",
        "type": "invalid_request_error",
        "code": "b",
        "param": None,
    }
