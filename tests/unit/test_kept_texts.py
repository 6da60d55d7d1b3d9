"""Texts that are kept in English and read in the reader's language."""

import pytest
from django.utils.translation import override

from apikeys import kept_texts


@pytest.mark.parametrize(
    ("kept", "read"),
    [
        (kept_texts.ENABLED(), "已启用。"),
        (kept_texts.DISABLED(reason="Lost,\nor so."), "已停用。原因：Lost,\nor so."),
        (kept_texts.ROTATED(when="after 24 hours"), "已轮换。旧密钥值失效时间：24 小时后。"),
        (kept_texts.NARROWED(endpoints="key.self", networks="10.0.0.0/8"), "已收窄为 key.self，来源限于 10.0.0.0/8。"),
        (kept_texts.NARROWED_EVERYWHERE(endpoints="key.self"), "已收窄为 key.self，来源不限。"),
        (kept_texts.ENDLESS(), "已设为永不过期。"),
        (kept_texts.CLOSED(endpoint="key.self", kind="app key"), "已对应用密钥关闭 key.self。"),
        ("Written by hand.", "Written by hand."),
        ("", ""),
    ],
)
def test_in_the_language_of_the_reader(kept, read):
    with override("zh-hans"):
        assert kept_texts.read(kept) == read
    with override("en"):
        assert kept_texts.read(kept) == kept


def test_a_reason_is_never_translated():
    with override("zh-hans"):
        assert kept_texts.read(kept_texts.REVOKED(reason="at once")) == "已吊销。原因：at once"


def test_a_percent_sign_stays():
    with override("zh-hans"):
        assert kept_texts.read(kept_texts.DISABLED(reason="100 % (s)")) == "已停用。原因：100 % (s)"
