from tests.clients.steps import CLIENTS, ClientSteps, WithEmbeddings, python


class TestLiteLLM(ClientSteps, WithEmbeddings):
    program = python("litellm_steps.py", CLIENTS)
    package = "PyPI `litellm`"
    errors = {
        "wrong_key": "AuthenticationError",
        "wrong_kind": "APIError",
        "too_long": "ContextWindowExceededError",
        "spent": "RateLimitError",
    }
