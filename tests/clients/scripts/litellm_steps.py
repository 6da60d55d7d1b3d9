import json
from typing import Any

import litellm
import report
from pydantic import BaseModel

# It prints hints about itself among the answers otherwise.
litellm.suppress_debug_info = True
MODEL = f"openai/{report.MODEL}"
USER = {"role": "user", "content": report.QUESTION}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}


class Weather(BaseModel):
    city: str
    rain: bool


def complete(*messages: Any, key: str = report.KEY, **options: Any) -> Any:
    return litellm.completion(MODEL, list(messages), base_url=report.BASE_URL, api_key=key, **options)


def ask(key: str, question: str) -> str:
    return complete({"role": "user", "content": question}, key=key).choices[0].message.content


def plain() -> dict[str, Any]:
    answer = complete(USER)
    usage = [answer.usage.prompt_tokens, answer.usage.completion_tokens]
    return {"text": answer.choices[0].message.content, "usage": usage}


def streamed(question: str) -> dict[str, Any]:
    chunks = list(complete({"role": "user", "content": question}, stream=True, stream_options={"include_usage": True}))
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    usage = chunks[-1].usage
    return {"pieces": pieces, "usage": [usage.prompt_tokens, usage.completion_tokens]}


def tools() -> dict[str, Any]:
    message = complete(USER, tools=[TOOL]).choices[0].message
    messages = [USER, message]
    for call in message.tool_calls:
        result = report.weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return {"text": complete(*messages, tools=[TOOL]).choices[0].message.content}


def tools_streamed() -> dict[str, Any]:
    whole = litellm.stream_chunk_builder(list(complete(USER, tools=[TOOL], stream=True)))
    (call,) = whole.choices[0].message.tool_calls
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def structured() -> dict[str, Any]:
    answer = complete(USER, response_format=Weather)
    return Weather.model_validate_json(answer.choices[0].message.content).model_dump()


def embedded() -> dict[str, Any]:
    made = litellm.embedding(
        f"openai/{report.EMBEDDING_MODEL}", ["one", "two"], api_base=report.BASE_URL, api_key=report.GLOBAL_KEY
    )
    return {"dimensions": [len(vector["embedding"]) for vector in made.data]}


report.run(ask, streamed, plain, tools, tools_streamed, structured, embedded)
