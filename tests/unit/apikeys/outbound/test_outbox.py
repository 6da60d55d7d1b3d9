import asyncio

import pytest

from apikeys.outbound.outbox import MAX_BYTES, MAX_PIECES, Outbox


class FakeTransport(asyncio.WriteTransport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_ended


async def turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_it_works() -> None:
    async def run() -> None:
        outbox, one, two = Outbox(), FakeTransport(), FakeTransport()
        outbox.write(one, b"a")
        outbox.write(two, b"b")
        outbox.write(one, b"c")
        assert (one.written, two.written) == ([], [])
        await turn()
        assert (one.written, two.written) == ([b"ac"], [b"b"])
        outbox.write(one, b"d")
        await turn()
        assert one.written == [b"ac", b"d"]

    asyncio.run(run())


def test_what_is_sent_now_is_not_sent_again() -> None:
    async def run() -> None:
        outbox, transport = Outbox(), FakeTransport()
        outbox.write(transport, b"a")
        assert outbox.has(transport)
        outbox.send(transport)
        assert not outbox.has(transport)
        outbox.send(transport)
        await turn()
        assert transport.written == [b"a"]

    asyncio.run(run())


def test_what_is_dropped_is_not_sent() -> None:
    async def run() -> None:
        outbox, transport = Outbox(), FakeTransport()
        outbox.write(transport, b"a")
        outbox.drop(transport)
        await turn()
        outbox.write(transport, b"b")
        transport.is_ended = True
        await turn()
        assert transport.written == []

    asyncio.run(run())


def test_one_that_fails_takes_nothing_from_others(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FakeTransport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            raise RuntimeError("it has said that it ends")

        def abort(self) -> None:
            self.is_ended = True

    async def run() -> None:
        outbox, failing, other = Outbox(), Failing(), FakeTransport()
        outbox.write(failing, b"a")
        outbox.write(other, b"b")
        await turn()
        assert (failing.is_ended, other.written) == (True, [b"b"])

    asyncio.run(run())
    assert "a connection took nothing" in caplog.text


@pytest.mark.parametrize("pieces", [[b"x" * (MAX_BYTES + 1)], [b"x"] * MAX_PIECES, [b"a", b"x" * (MAX_BYTES + 1)]])
def test_much_does_not_wait(pieces: list[bytes]) -> None:
    async def run() -> None:
        outbox, transport = Outbox(), FakeTransport()
        for piece in pieces:
            outbox.write(transport, piece)
        assert transport.written == [b"".join(pieces)]

    asyncio.run(run())
