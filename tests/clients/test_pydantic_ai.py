from tests.clients.steps import CLIENTS, ClientSteps, WithFunctionForms, WithResponses, python


class TestPydanticAI(ClientSteps, WithFunctionForms, WithResponses):
    program = python("pydantic_ai_steps.py", CLIENTS)
    package = "PyPI `pydantic-ai-slim`"
    errors = {
        "wrong_key": "ModelAuthenticationError",
        "wrong_kind": "ModelAuthenticationError",
        "too_long": "ModelContextWindowExceededError",
        "spent": "ModelQuotaExceededError",
    }
