"""Whether an allowed request is taken on now: the one place where limits are asked.

Today that is this process's own bound: what is accepted must also be recorded, so room for its record is
held from the start. Rates and budgets join here.
"""

from types import TracebackType
from typing import Any

from apikeys.group_commit import Gate


class Admission:
    """One request taken on, holding room in the gate that will record it. Raises ServiceUnavailable when full."""

    __slots__ = ("_gate", "is_open")

    def __init__(self, gate: Gate[Any, Any]) -> None:
        gate.reserve()
        self._gate = gate
        self.is_open = True

    def record(self, item: Any) -> Any:
        """Hand the record over in the room that was held, once. Returns what `Gate.wait` awaits."""
        self.is_open = False
        return self._gate.begin(item, reserved=True)

    def __enter__(self) -> "Admission":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.is_open:
            self.is_open = False
            self._gate.release()
