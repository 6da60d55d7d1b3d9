from tests.clients import model
from tests.clients.steps import CLIENTS, ClientSteps, Seen, WithEmbeddings, WithFunctionForms, WithResponses, python


class TestLangChain(ClientSteps, WithFunctionForms, WithEmbeddings, WithResponses):
    program = python("langchain_steps.py", CLIENTS)
    package = "PyPI `langchain-openai`"
    errors = {
        "wrong_key": "OpenAIAuthenticationError",
        "wrong_kind": "OpenAIPermissionDeniedError",
        "too_long": "OpenAIInvalidRequestError",
        "spent": "OpenAIRateLimitError",
    }

    def test_embeddings_of_tokens(self, seen: Seen) -> None:
        assert seen.steps["embedded_by_tokens"] == {"dimensions": [model.DIMENSIONS] * 2}
        assert seen.embedded[-1] == [[606], [20375]]
