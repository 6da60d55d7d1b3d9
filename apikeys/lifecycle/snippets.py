"""Snippets that use a key, ready to paste: one first call for each kind of client."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from apikeys.keys.kinds import AccessKind

ASK = """\
  --header 'Authorization: Bearer {key}' \\
  --header 'Content-Type: application/json' \\
  --data-raw '{{{app}"chatId":"111",%s,"messages":[{{"content":"Who are you?","role":"user"}}]}}'"""
CURL_CHAT = "curl '{base_url}/v1/chat/completions' \\\n" + ASK % '"stream":false,"detail":false'
CURL_DETAIL = "curl --no-buffer '{base_url}/v1/chat/completions' \\\n" + ASK % '"stream":true,"detail":true'
PYTHON_CHAT = """\
from openai import OpenAI

client = OpenAI(base_url="{base_url}/v1", api_key="{key}")
answer = client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Who are you?"}}])
print(answer.choices[0].message.content)"""
JAVASCRIPT_CHAT = """\
import OpenAI from "openai";

const client = new OpenAI({{ baseURL: "{base_url}/v1", apiKey: "{key}" }});
const answer = await client.chat.completions.create({{
  model: "{model}",
  messages: [{{ role: "user", content: "Who are you?" }}],
}});
console.log(answer.choices[0].message.content);"""

CURL_KEY = """\
curl '{base_url}/v1/key' \\
  --header 'Authorization: Bearer {key}'"""
CURL_APPS = """\
curl '{base_url}/core/app/list' \\
  --header 'Authorization: Bearer {key}'"""
PYTHON_MODELS = """\
from openai import OpenAI

client = OpenAI(base_url="{base_url}/v1", api_key="{key}")
print(client.models.list())"""
JAVASCRIPT_MODELS = """\
import OpenAI from "openai";

const client = new OpenAI({{ baseURL: "{base_url}/v1", apiKey: "{key}" }});
console.log(await client.models.list());"""

CHAT = {"curl": CURL_CHAT, "python": PYTHON_CHAT, "javascript": JAVASCRIPT_CHAT, "fastgpt": CURL_DETAIL}
# A global key talks to no app: its first call reads the key itself, or lists the models or apps.
GLOBAL = {"curl": CURL_KEY, "python": PYTHON_MODELS, "javascript": JAVASCRIPT_MODELS, "fastgpt": CURL_APPS}
TITLES = {"curl": "curl", "python": "Python", "javascript": "JavaScript", "fastgpt": "FastGPT"}
# The user replaces this placeholder by the id of an app, for a key that has to name one.
APP_ID = "APP_ID"


@dataclass(frozen=True, slots=True)
class Snippet:
    name: str
    title: str
    # The code contains the plaintext, so it stays out of `repr`.
    code: str = field(repr=False)

    @property
    def lines(self) -> int:
        return self.code.count("\n") + 1


def snippets(kind: AccessKind, base_url: str, key: str) -> Iterator[Snippet]:
    names_app = kind == AccessKind.GLOBAL_NAMING_APP
    words = {
        "base_url": base_url,
        "key": key,
        "app": f'"appId":"{APP_ID}",' if names_app else "",
        "model": APP_ID if names_app else "any",
    }
    for name, template in (GLOBAL if kind == AccessKind.GLOBAL else CHAT).items():
        yield Snippet(name, TITLES[name], template.format(**words))
