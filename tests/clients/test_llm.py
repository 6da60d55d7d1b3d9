from tests.clients import model
from tests.clients.steps import CLIENTS, ClientSteps, Seen, WithResponses, python


class TestLlm(ClientSteps, WithResponses):
    program = python("llm_steps.py", CLIENTS)
    package = "PyPI `llm`"
    errors = {
        "wrong_key": "AuthenticationError",
        "wrong_kind": "PermissionDeniedError",
        "too_long": "BadRequestError",
        "spent": "RateLimitError",
    }

    def test_command_line(self, seen: Seen) -> None:
        assert seen.steps["command_line"] == {"text": model.TEXT, "code": 0}
