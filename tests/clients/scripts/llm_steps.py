import os
from pathlib import Path
from typing import Any

import llm
import report
import yaml
from click.testing import CliRunner
from llm.cli import cli
from pydantic import BaseModel

NAME = "fastgpt"
NEWER = "fastgpt-responses"
MODEL = {
    "model_id": NAME,
    "model_name": report.MODEL,
    "api_base": report.BASE_URL,
    "api_key_name": NAME,
    "supports_tools": True,
    "supports_schema": True,
}
MODELS = [MODEL, MODEL | {"model_id": NEWER, "responses": True}]


class Weather(BaseModel):
    city: str
    rain: bool


def ask(key: str, question: str) -> str:
    return llm.get_model(NAME).prompt(question, key=key, stream=False).text()


def usage_of(response: Any) -> list[int]:
    usage = response.usage()
    return [usage.input, usage.output]


def plain(name: str = NAME) -> dict[str, Any]:
    response = llm.get_model(name).prompt(report.QUESTION, stream=False)
    return {"text": response.text(), "usage": usage_of(response)}


def streamed(question: str, name: str = NAME) -> dict[str, Any]:
    response = llm.get_model(name).prompt(question)
    return {"pieces": [piece for piece in response if piece], "usage": usage_of(response)}


def tools(name: str = NAME) -> dict[str, Any]:
    return {"text": llm.get_model(name).chain(report.QUESTION, tools=[report.weather], stream=False).text()}


def tools_streamed() -> dict[str, Any]:
    response = llm.get_model(NAME).prompt(report.QUESTION, tools=[report.weather])
    (call,) = response.tool_calls()
    return {"name": call.name, "arguments": call.arguments}


def structured() -> dict[str, Any]:
    answer = llm.get_model(NAME).prompt(report.QUESTION, schema=Weather)
    return Weather.model_validate_json(answer.text()).model_dump()


def command_line() -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["prompt", "--model", NAME, "--no-log", report.QUESTION], catch_exceptions=False)
    return {"text": result.output.strip(), "code": result.exit_code}


def responses() -> dict[str, Any]:
    return {**plain(NEWER), **streamed(report.QUESTION, NEWER), "told": tools(NEWER)["text"]}


folder = Path(os.environ["LLM_USER_PATH"])
(folder / "extra-openai-models.yaml").write_text(yaml.dump(MODELS))
CliRunner().invoke(cli, ["keys", "set", NAME, "--value", report.KEY], catch_exceptions=False)
report.run(ask, streamed, plain, tools, tools_streamed, structured, command_line, responses)
