"""How a call fails. No text of these exceptions names an address or a secret.

OSError
    AddressRefused (apikeys.outbound.addresses)
    CallFailed
        ConnectFailed
            TlsFailed
        BrokenOff
        MalformedAnswer
        AnswerTooLong
        SiteFailed
ValueError
    UnusableTarget
TimeoutError
"""


class CallFailed(OSError):
    """There is no answer, or no whole one."""


class ConnectFailed(CallFailed):
    """No connection could be made, so nothing was sent."""


class TlsFailed(ConnectFailed):
    """The server cannot prove who it is, or speaks no TLS."""


class BrokenOff(CallFailed):
    """The connection ended before the answer did. The request may have been processed."""


class MalformedAnswer(CallFailed):
    """What came is no HTTP, or in a coding that is not understood."""


class AnswerTooLong(CallFailed):
    """The answer is longer than its reader takes, or its head than any reader does."""


class SiteFailed(CallFailed):
    """A site gave no answer, or no whole one. The text is the name of what went wrong."""


class UnusableTarget(ValueError):
    """The URL or the secret cannot be sent."""
