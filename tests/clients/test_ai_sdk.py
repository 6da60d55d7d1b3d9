from tests.clients.steps import ClientSteps, WithEmbeddings, WithResponses, node

ERRORS = dict.fromkeys(("wrong_key", "wrong_kind", "too_long", "spent"), "AI_APICallError")


class TestOpenAICompatible(ClientSteps, WithEmbeddings):
    program = node("ai_sdk_steps.mjs", "compatible")
    package = "npm `@ai-sdk/openai-compatible`"
    errors = ERRORS


class TestOpenAI(ClientSteps, WithEmbeddings, WithResponses):
    program = node("ai_sdk_steps.mjs", "openai")
    package = "npm `@ai-sdk/openai`"
    errors = ERRORS
