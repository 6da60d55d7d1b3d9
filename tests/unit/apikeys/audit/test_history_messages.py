"""Texts that are stored in English and shown in the reader's language."""

import pytest
from django.utils.translation import override

from apikeys.audit import history_messages


@pytest.mark.parametrize(
    ("kept", "read"),
    [
        (history_messages.ENABLED(), "已启用。"),
        (history_messages.DISABLED(reason="Lost,\nor so."), "已停用。原因：Lost,\nor so."),
        (history_messages.ROTATED(when="after 24 hours"), "已轮换。旧密钥值过期时间：24 小时后。"),
        (
            history_messages.NARROWED(endpoints="key.self", networks="10.0.0.0/8"),
            "已收窄为 key.self，来源限于 10.0.0.0/8。",
        ),
        (history_messages.NARROWED_EVERYWHERE(endpoints="key.self"), "已收窄为 key.self，来源不限。"),
        (history_messages.ENDLESS(), "已设为永不过期。"),
        (history_messages.CLOSED(endpoint="key.self", kind="app key"), "已对应用密钥关闭 key.self。"),
        ("Written by hand.", "Written by hand."),
        ("", ""),
    ],
)
def test_in_the_language_of_the_reader(kept, read):
    with override("zh-hans"):
        assert history_messages.read(kept) == read
    with override("en"):
        assert history_messages.read(kept) == kept


def test_a_reason_is_never_translated():
    with override("zh-hans"):
        assert history_messages.read(history_messages.REVOKED(reason="at once")) == "已撤销。原因：at once"


def test_a_percent_sign_stays():
    with override("zh-hans"):
        assert history_messages.read(history_messages.DISABLED(reason="100 % (s)")) == "已停用。原因：100 % (s)"
