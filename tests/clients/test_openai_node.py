from tests.clients.steps import ClientSteps, WithEmbeddings, WithResponses, node


class TestOpenAI(ClientSteps, WithEmbeddings, WithResponses):
    program = node("openai_steps.mjs")
    package = "npm `openai`"
    errors = {
        "wrong_key": "AuthenticationError",
        "wrong_kind": "PermissionDeniedError",
        "too_long": "BadRequestError",
        "spent": "RateLimitError",
    }
