"""The format of a key."""

import hashlib
import hmac
import re
import string

from hypothesis import given
from hypothesis import strategies as st

from apikeys.keys import crypto
from apikeys.object_ids import new_object_id

PLAINTEXT = "fastgpt-" + "a" * 46
FOREIGN = st.text(alphabet=string.ascii_letters + string.digits + "_.-", min_size=16, max_size=200)


def base62(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 62 + (string.digits + string.ascii_uppercase + string.ascii_lowercase).index(digit)
    return value


def test_it_works():
    key = crypto.generate()
    assert crypto.is_ours(key)
    assert len(key) == len("fastgpt-") + 52
    assert re.fullmatch(r"fastgpt-[a-z][0-9A-Za-z]{51}", key)
    assert crypto.PATTERN.fullmatch(key)
    assert crypto.FOREIGN_PATTERN.fullmatch(key)
    assert crypto.parse_credential(key) == crypto.Credential(key, None)


def test_no_two_are_the_same():
    assert len({crypto.generate() for _ in range(1000)}) == 1000


def test_checksum_is_the_crc32_in_six_base62_digits():
    # These are known without the code: the CRC32 of nothing is 0, of "123456789" 0xCBF43926.
    assert crypto.checksum("") == "000000"
    assert base62(crypto.checksum("123456789")) == 0xCBF43926
    assert crypto.is_ours(PLAINTEXT + crypto.checksum(PLAINTEXT))


@given(st.data())
def test_any_one_changed_character_is_noticed(data):
    key = crypto.generate()
    position = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda character: character != key[position]))
    assert not crypto.is_ours(key[:position] + other + key[position + 1 :])


@given(st.integers(8, 58))
def test_two_swapped_characters_are_noticed(position):
    key = crypto.generate()
    swapped = key[:position] + key[position + 1] + key[position] + key[position + 2 :]
    assert swapped == key or not crypto.is_ours(swapped)


@given(st.text())
def test_noise_is_not_ours(text):
    assert not crypto.is_ours(text)
    assert not crypto.is_ours("fastgpt-" + text)


def test_a_key_with_more_around_it_is_not_ours():
    key = crypto.generate()
    for text in (key + "a", key[:-1], " " + key, key + "\n", key.upper(), "Bearer " + key):
        assert not crypto.is_ours(text)


@given(FOREIGN)
def test_credential_without_an_app(key):
    credential = crypto.parse_credential(key)
    assert credential is not None
    if credential.app_id is None:
        assert credential.key == key
    else:
        assert f"{credential.key}-{credential.app_id}" == key


@given(FOREIGN)
def test_credential_with_an_app(key):
    app_id = new_object_id()
    assert crypto.parse_credential(f"{key}-{app_id}") == crypto.Credential(key, app_id)


def test_only_the_last_suffix_is_the_app():
    key, first, second = crypto.generate(), new_object_id(), new_object_id()
    assert crypto.parse_credential(f"{key}-{first}-{second}") == crypto.Credential(f"{key}-{first}", second)


def test_what_is_no_app_id_stays_with_the_key():
    key = crypto.generate()
    for suffix in ("-" + "a" * 23, "-" + "a" * 25, "-" + "A" * 24, "-" + "g" * 24, "_" + "a" * 24):
        assert crypto.parse_credential(key + suffix) == crypto.Credential(key + suffix, None)


def test_what_can_be_no_credential():
    for text in (
        "",
        "short",
        "a" * 15,
        "a" * 251,
        "a" * 20 + " ",
        "a" * 20 + "\n",
        "ключ" * 10,
        "a" * 20 + "/",
        "\0" * 20,
    ):
        assert crypto.parse_credential(text) is None


def test_repr_of_a_credential_hides_the_key():
    key = crypto.generate()
    credential = crypto.parse_credential(f"{key}-{'a' * 24}")
    assert repr(credential) == f"Credential(key='******{key[-4:]}', app_id='{'a' * 24}')"
    assert key[:-4] not in str(credential)


def test_digest_is_hmac_sha256_of_the_whole_key():
    assert crypto.digest("key", b"pepper") == hmac.new(b"pepper", b"key", hashlib.sha256).digest()
    assert len(crypto.digest("key", b"pepper")) == 32
    assert crypto.digest("key", b"pepper") != crypto.digest("key", b"other")


def test_digests_keep_the_order_of_the_peppers():
    peppers = {"new": b"2" * 32, "old": b"1" * 32}
    assert list(crypto.digests("key", peppers).items()) == [
        ("new", crypto.digest("key", b"2" * 32)),
        ("old", crypto.digest("key", b"1" * 32)),
    ]
