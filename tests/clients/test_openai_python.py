from tests.clients.steps import ClientSteps, WithEmbeddings, WithResponses, python


class TestOpenAI(ClientSteps, WithEmbeddings, WithResponses):
    program = python("openai_steps.py")
    package = "PyPI `openai`"
    errors = {
        "wrong_key": "AuthenticationError",
        "wrong_kind": "PermissionDeniedError",
        "too_long": "BadRequestError",
        "spent": "RateLimitError",
    }
