"""How the client of providers comes to a connection: names, addresses, attempts, TLS."""

import asyncio
import datetime
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apikeys.outbound import client
from apikeys.outbound.addresses import AddressRefused, allowed_networks
from apikeys.outbound.failures import ConnectFailed, TlsFailed
from tests.support.raw_server import Peer, serving
from tests.unit.apikeys.outbound.conftest import Run
from tests.unit.apikeys.outbound.test_client import answer_nothing, post, wait_until


class Loop(asyncio.SelectorEventLoop):
    """A loop with a name server of its own, in which the first `failures` attempts to connect fail."""

    def __init__(self, *addresses: str, failures: int = 0) -> None:
        super().__init__()
        self.addresses = addresses
        self.failures = failures
        self.resolved = 0
        self.attempts: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        if host != "provider.test":
            return await super().getaddrinfo(host, port, **options)
        self.resolved += 1
        await asyncio.sleep(0)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "not found")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

    async def create_connection(self, factory: Any, host: Any, port: Any, **options: Any) -> Any:
        self.attempts.append(host)
        if len(self.attempts) <= self.failures:
            raise ConnectionRefusedError
        return await super().create_connection(factory, host, port, **options)


def run_in(loop: Loop, url: str = "http://provider.test:{port}/v1", calls: int = 1) -> list[Any]:
    async def main() -> list[Any]:
        async with serving() as server:
            try:
                return await asyncio.gather(
                    *(post(url.format(port=server.port), connect_seconds=1) for _ in range(calls)),
                    return_exceptions=True,
                )
            finally:
                await client.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


def test_a_name_is_resolved_once_for_all(run: Run) -> None:
    loop = Loop("127.0.0.1")
    responses = run_in(loop, calls=5)
    assert [response.status for response in responses] == [200] * 5
    assert (loop.resolved, loop.attempts) == (1, ["127.0.0.1"] * 5)


def test_a_private_address_is_not_even_connected_to() -> None:
    loop = Loop("10.0.0.1", "::ffff:10.0.0.1")
    (outcome,) = run_in(loop)
    assert isinstance(outcome, AddressRefused)
    assert loop.attempts == []


def test_a_literal_private_address_is_refused(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    allowed_networks.cache_clear()
    for host in ("127.0.0.1", "[::1]", "localhost"):
        loop = Loop()
        (outcome,) = run_in(loop, f"http://{host}:{{port}}/")
        assert isinstance(outcome, AddressRefused)
        assert loop.attempts == []


def test_of_several_addresses_the_first_that_may_and_answers() -> None:
    loop = Loop("10.0.0.1", "127.0.0.2", "127.0.0.1")
    (response,) = run_in(loop)
    assert response.status == 200
    assert loop.attempts == ["127.0.0.2", "127.0.0.1"]


def test_an_address_that_failed_is_tried_last() -> None:
    loop = Loop("127.0.0.2", "127.0.0.1")

    async def main() -> None:
        async with serving() as server:
            for _ in range(2):
                response = await post(f"http://provider.test:{server.port}/")
                assert response.status == 200
                pool = client.client_of_loop()
                server.peers[-1].writer.close()
                await wait_until(lambda pool=pool: pool.open_count == 0)
            await client.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert loop.attempts == ["127.0.0.2", "127.0.0.1", "127.0.0.1"]


def test_a_failed_connect_is_tried_once_more() -> None:
    loop = Loop("127.0.0.1", failures=1)
    (response,) = run_in(loop)
    assert (response.status, len(loop.attempts)) == (200, 2)
    loop = Loop("127.0.0.1", failures=2)
    (outcome,) = run_in(loop)
    assert isinstance(outcome, ConnectFailed)
    assert len(loop.attempts) == 2


def test_a_name_that_leads_nowhere() -> None:
    loop = Loop()
    (outcome,) = run_in(loop)
    assert isinstance(outcome, ConnectFailed)
    # A failure is not kept.
    assert loop.resolved == 2


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that takes no connection: the system answers nothing while its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("connect_seconds", "seconds"), [(0.1, 20), (20, 0.1)])
def test_connecting_takes_no_longer_than_it_may(
    run: Run, deaf_port: int, connect_seconds: float, seconds: float
) -> None:
    async def test() -> None:
        with pytest.raises(TimeoutError):
            await post(f"http://127.0.0.1:{deaf_port}/", connect_seconds=connect_seconds, seconds=seconds)

    run(test)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def tls_of_server(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def test_tls(run: Run, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def test() -> None:
        async with serving(tls=tls_of_server(certificate)) as server:
            body = b"x" * 2**20
            for _ in range(2):
                assert (await post(server.url, body)).body() == b"{}"
            assert [(number, len(sent)) for number, _, sent in server.requests] == [(0, 2**20), (0, 2**20)]
            with pytest.raises(TlsFailed):
                # It is another name.
                await post(server.url.replace("localhost", "127.0.0.1"))
            assert len(server.requests) == 2

    run(test)


def test_a_stream_over_tls_that_is_cancelled(run: Run, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def test() -> None:
        async with serving(answer_nothing, tls=tls_of_server(certificate)) as server:
            call = asyncio.create_task(post(server.url))
            await wait_until(lambda: bool(server.peers))
            await server.peers[0].read_request()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await server.peers[0].wait_until_left()

    run(test)


def test_a_server_that_cannot_prove_who_it_is(run: Run, certificate: Path) -> None:
    async def test() -> None:
        async with serving(tls=tls_of_server(certificate)) as server:
            with pytest.raises(TlsFailed):
                await post(server.url)
            assert server.requests == []

    run(test)


def test_a_server_that_speaks_no_tls(run: Run) -> None:
    async def test() -> None:
        async def script(peer: Peer) -> None:
            peer.send(b"220 mail.example ESMTP\r\n")
            await peer.wait_until_left()

        async with serving(script) as server:
            with pytest.raises(TlsFailed):
                await post(server.url.replace("http://", "https://"))

    run(test)
