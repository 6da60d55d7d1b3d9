from tests.clients.steps import CLIENTS_OPENAI2, ClientSteps, WithFunctionForms, python


class TestLlamaIndex(ClientSteps, WithFunctionForms):
    program = python("llama_index_steps.py", CLIENTS_OPENAI2)
    package = "PyPI `llama-index-llms-openai-like`"
    errors = {
        "wrong_key": "AuthenticationError",
        "wrong_kind": "PermissionDeniedError",
        "too_long": "BadRequestError",
        "spent": "RateLimitError",
    }
