"""The tree of refusals: every code that the API answers with has one explanation, of its own."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from django.utils.translation import override

from apikeys import errors
from apikeys.errors import ApiError, InsufficientQuota, RateLimited
from tests.test_project import ARROWS


def tree(error: type[ApiError]) -> Iterator[type[ApiError]]:
    yield error
    for subclass in error.__subclasses__():
        yield from tree(subclass)


@pytest.fixture(scope="module")
def classes() -> list[type[ApiError]]:
    """All refusals of the product, once every module of it is loaded."""
    for app in ARROWS:
        package = importlib.import_module(app)
        for module in pkgutil.walk_packages(package.__path__, f"{app}."):
            if not module.name.endswith(".__main__") and ".migrations." not in module.name:
                importlib.import_module(module.name)
    return [error for error in tree(ApiError) if error.__module__.partition(".")[0] in ARROWS]


def test_the_whole_tree_is_seen(classes):
    assert {"TextsRefused", "CsrfFailed", "Rejected"} <= {error.__name__ for error in classes}
    assert len(classes) > 35


def test_codes_and_explanations_belong_together(classes):
    """A code that is new and has no text inherits another's, which this finds."""
    explanations: dict[str, set[str]] = {}
    codes: dict[str, set[str]] = {}
    for error in classes:
        explanations.setdefault(error.error_code, set()).add(str(error.explanation))
        codes.setdefault(str(error.explanation), set()).add(error.error_code)
    assert {code: texts for code, texts in explanations.items() if len(texts) > 1} == {}
    assert {text: shared for text, shared in codes.items() if len(shared) > 1} == {}
    assert all(codes)
    assert len(codes) > 30


def test_an_explanation_is_found_by_its_code(classes):
    assert {error.error_code: ApiError.explanations[error.error_code] for error in classes} == {
        error.error_code: error.explanation for error in classes
    }


def test_codes_stand_in_one_module(classes):
    """So that the tree shows all of them, and a process that loads nothing else can explain them."""
    known = {error.error_code for error in vars(errors).values() if isinstance(error, type) and error in classes}
    assert {error.error_code for error in classes} == known


def test_explanations_are_translated(classes):
    with override("zh-hans"):
        texts = {error.error_code: str(error.explanation) for error in classes}
    assert {code: text for code, text in texts.items() if text.isascii()} == {}


def test_an_explanation_stays_out_of_the_answer(classes):
    body = errors.CsrfFailed().json().decode()
    assert str(errors.CsrfFailed.explanation) not in body


def test_a_spent_quota_is_not_tried_again() -> None:
    assert InsufficientQuota("abcd", "None is left.", 10).headers() == {"Retry-After": "10", "X-Should-Retry": "false"}
    assert RateLimited("Full.", 10).headers() == {"Retry-After": "10"}
