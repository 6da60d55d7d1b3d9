"""Where a call goes: a URL as a connection is made to it, and as a request names it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from apikeys.outbound.failures import UnusableTarget

USER_AGENT = "fastgpt-site"
PORTS = {"http": 80, "https": 443}
# These stay as they are in a path and a query (RFC 3986), and so does what is percent-encoded already.
SAFE = "/:@!$&'()*+,;=~?%"
# The standard library has the older IDNA, which maps these to other letters and so leads to other domains.
DEVIATING = frozenset("\u00df\u03c2\u200c\u200d")
CONTROLS = frozenset(map(chr, (*range(32), 127)))


class Origin(NamedTuple):
    """A server, as connections to it are told apart."""

    is_tls: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that is posted to. `literal` tells whether its host is an address."""

    origin: Origin
    is_literal: bool
    head: bytes


@lru_cache(maxsize=4096)
def parse_target(url: str) -> Target:
    """Take an http or https URL apart; its credentials and its fragment are not sent. Raise UnusableTarget."""
    # urlsplit drops line breaks silently.
    if not CONTROLS.isdisjoint(url) or " " in url:
        raise UnusableTarget("The URL has spaces or control characters.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UnusableTarget("This is not a URL.") from None
    if parts.scheme not in PORTS or not host or port == 0:
        raise UnusableTarget("This is not an http or https URL with a host.")
    host, is_literal = _encode_host(host)
    name = f"[{host}]" if ":" in host else host
    if port not in (None, PORTS[parts.scheme]):
        name = f"{name}:{port}"
    path = quote(parts.path or "/", safe=SAFE) + (f"?{quote(parts.query, safe=SAFE)}" if parts.query else "")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n"
        "Accept-Encoding: identity\r\nContent-Type: application/json\r\n"
    )
    return Target(Origin(parts.scheme == "https", host, port or PORTS[parts.scheme]), is_literal, head.encode("ascii"))


def _encode_host(host: str) -> tuple[str, bool]:
    """Return a host in ASCII, and whether it is an address."""
    try:
        address = ip_address(host)
    except ValueError:
        pass
    else:
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise UnusableTarget("An address with a zone has no meaning to the server.")
        return str(address), True
    try:
        encoded = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise UnusableTarget("The host is no domain name.") from None
    if not DEVIATING.isdisjoint(host) or not encoded.replace("-", "").replace(".", "").replace("_", "").isalnum():
        raise UnusableTarget("The host is no domain name.")
    return encoded, False
