import json
from typing import Any

import report
from openai import OpenAI
from pydantic import BaseModel

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
USER: Any = {"role": "user", "content": report.QUESTION}
client = OpenAI(base_url=report.BASE_URL, api_key=report.KEY)


class Weather(BaseModel):
    city: str
    rain: bool


def ask(key: str, question: str) -> str:
    with OpenAI(base_url=report.BASE_URL, api_key=key) as other:
        messages: Any = [{"role": "user", "content": question}]
        return other.chat.completions.create(model=report.MODEL, messages=messages).choices[0].message.content or ""


def plain() -> dict[str, Any]:
    answer = client.chat.completions.create(model=report.MODEL, messages=[USER])
    assert answer.usage is not None
    usage = [answer.usage.prompt_tokens, answer.usage.completion_tokens]
    return {"text": answer.choices[0].message.content, "usage": usage}


def streamed(question: str) -> dict[str, Any]:
    messages: Any = [{"role": "user", "content": question}]
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(model=report.MODEL, messages=messages, stream=True, stream_options=options)
    pieces, usage = [], None
    for chunk in stream:
        pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        usage = chunk.usage or usage
    assert usage is not None
    return {"pieces": pieces, "usage": [usage.prompt_tokens, usage.completion_tokens]}


def tools() -> dict[str, Any]:
    messages: Any = [USER]
    message = client.chat.completions.create(model=report.MODEL, messages=messages, tools=[TOOL]).choices[0].message
    messages.append(message)
    for call in message.tool_calls or []:
        assert call.type == "function"
        result = report.weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = client.chat.completions.create(model=report.MODEL, messages=messages, tools=[TOOL])
    return {"text": answer.choices[0].message.content}


def tools_streamed() -> dict[str, Any]:
    with client.chat.completions.stream(model=report.MODEL, messages=[USER], tools=[TOOL]) as stream:
        message = stream.get_final_completion().choices[0].message
    (call,) = message.tool_calls or []
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def structured() -> dict[str, Any]:
    answer = client.chat.completions.parse(model=report.MODEL, messages=[USER], response_format=Weather)
    parsed = answer.choices[0].message.parsed
    assert parsed is not None
    return parsed.model_dump()


def embedded() -> dict[str, Any]:
    with OpenAI(base_url=report.BASE_URL, api_key=report.GLOBAL_KEY) as other:
        made = other.embeddings.create(model=report.EMBEDDING_MODEL, input=["one", "two"])
        return {"dimensions": [len(vector.embedding) for vector in made.data]}


def responses() -> dict[str, Any]:
    answer = client.responses.create(model=report.MODEL, input=report.QUESTION)
    events = client.responses.create(model=report.MODEL, input=report.QUESTION, stream=True)
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert answer.usage is not None
    return {
        "text": answer.output_text,
        "usage": [answer.usage.input_tokens, answer.usage.output_tokens],
        "pieces": pieces,
        "told": _told_by_responses(),
    }


def _told_by_responses() -> str:
    tool: Any = {"type": "function", **TOOL["function"]}
    items: Any = [USER]
    for item in client.responses.create(model=report.MODEL, input=items, tools=[tool]).output:
        items.append(item)
        if item.type == "function_call":
            result = report.weather(**json.loads(item.arguments))
            items.append({"type": "function_call_output", "call_id": item.call_id, "output": result})
    return client.responses.create(model=report.MODEL, input=items, tools=[tool]).output_text


report.run(ask, streamed, plain, tools, tools_streamed, structured, embedded, responses)
