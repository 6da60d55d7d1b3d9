import pytest

from apikeys.outbound.failures import UnusableTarget
from apikeys.outbound.targets import Origin, parse_target


@pytest.mark.parametrize(
    ("url", "origin", "host", "path"),
    [
        ("http://api.example/v1", Origin(False, "api.example", 80), "api.example", "/v1"),
        ("https://api.example:443/v1", Origin(True, "api.example", 443), "api.example", "/v1"),
        ("https://API.example:8443/v1/", Origin(True, "api.example", 8443), "api.example:8443", "/v1/"),
        ("http://api.example:443", Origin(False, "api.example", 443), "api.example:443", "/"),
        ("http://[fd00::1]:8000/v1", Origin(False, "fd00::1", 8000), "[fd00::1]:8000", "/v1"),
        ("http://[FD00:0:0::1]/v1", Origin(False, "fd00::1", 80), "[fd00::1]", "/v1"),
        ("http://user:secret@api.example/v1#part", Origin(False, "api.example", 80), "api.example", "/v1"),
        ("http://api.example/v1?a=b&c=%20", Origin(False, "api.example", 80), "api.example", "/v1?a=b&c=%20"),
        ("http://api.example/模型/a%2Fb", Origin(False, "api.example", 80), "api.example", "/%E6%A8%A1%E5%9E%8B/a%2Fb"),
        ("http://bücher.example/", Origin(False, "xn--bcher-kva.example", 80), "xn--bcher-kva.example", "/"),
        ("http://ollama_1/v1", Origin(False, "ollama_1", 80), "ollama_1", "/v1"),
    ],
)
def test_a_url_is_taken_apart(url: str, origin: Origin, host: str, path: str) -> None:
    target = parse_target(url)
    assert target.origin == origin
    assert target.head.startswith(f"POST {path} HTTP/1.1\r\nHost: {host}\r\n".encode())
    assert b"secret" not in target.head


@pytest.mark.parametrize(
    "url",
    [
        *("", "api.example/v1", "ftp://api.example/", "http://", "http:///v1", "http://api.example:0/"),
        *("http://api.example:99999/", "http://api.example:x/", "http://[::1/", "http://api.example/\r\nX: y"),
        *("http://api.example/a\nb", "http://api.example/\0", "http://api.example/a b", "http://a\tb/", "http://a\\b/"),
        *("http://a..b\u00fc/", "http://stra\u00dfe.example/", "http://a%0d%0ab/", "http://[fe80::1%25eth0]/"),
    ],
)
def test_what_cannot_be_called(url: str) -> None:
    with pytest.raises(UnusableTarget):
        parse_target(url)
