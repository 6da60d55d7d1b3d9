"""What every client must see of the server. A test of a client names its program, and its names of refusals.

The program runs once, in an environment of its own: all its steps, one after the other.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from apikeys.accounting.ledger import Refusal
from apikeys.keys import crypto
from chat.models import App
from tests.api.test_limits import limit
from tests.clients import model
from tests.conftest import Server
from tests.environment import PROJECT
from tests.support import factories
from tests.support.conversations import make_app
from tests.support.fake_provider import FakeProvider
from tests.support.processes import ending, wait_for

FOLDER = PROJECT / "tests" / "clients"
CLIENTS = PROJECT / ".venv-clients"
CLIENTS_OPENAI2 = PROJECT / ".venv-clients-openai2"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# LiteLLM brings OpenAI's tokenizer along, by the name that it has where it is kept once it was fetched.
TOKENIZERS = CLIENTS / "lib" / PYTHON / "site-packages" / "litellm" / "litellm_core_utils" / "tokenizers"
USAGE = [11, 7]
# The step, its status, and what its message says.
REFUSALS = [
    ("wrong_key", 401, "This API key is not valid."),
    ("wrong_kind", 403, "You need to use the app key rather than the account key."),
    ("too_long", 400, "This model's maximum context length is 128 tokens."),
    ("spent", 429, "is over usage"),
]


@dataclass(frozen=True)
class Program:
    command: Sequence[str]
    # It is there when the program's environment is complete.
    stamp: Path


def python(name: str, environment: Path | None = None) -> Program:
    """Return a program of Python, by default in the tests' own environment."""
    interpreter = sys.executable if environment is None else str(environment / "bin" / "python")
    stamp = Path(sys.executable) if environment is None else environment / ".installed"
    return Program([interpreter, str(FOLDER / "scripts" / name)], stamp)


def node(name: str, *arguments: str) -> Program:
    interpreter = PROJECT / ".venv-clients" / "bin" / "node"
    folder = FOLDER / "node"
    return Program([str(interpreter), str(folder / name), *arguments], folder / "node_modules" / ".installed")


@dataclass(frozen=True)
class Seen:
    """What a client saw, by step; what the provider was sent for it; and how often its spent key was refused."""

    steps: dict[str, dict[str, Any]]
    calls: list[dict[str, Any]]
    embedded: list[list[Any]]
    tries_of_spent_key: int


class ClientSteps:
    """The steps that every client has."""

    program: Program
    # Its place in docs/clients.md.
    package: str
    # The exception of each refusal, as the client names it.
    errors: dict[str, str]

    @pytest.fixture(scope="class")
    @classmethod
    def seen(cls, server: Server, provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
        require(cls.program)
        name = next(model.names)
        provider.replies[name] = model.answer
        app = make_app(provider, name)
        spent, spent_key = factories.make_key(app=app)
        limit(spent, "tokens", "total", 1)
        factories.make_dataset(app.team, factories.provider_of(app), name)
        _, global_key = factories.make_key(app.team)
        refused = {"wrong_key": crypto.generate(), "wrong_kind": global_key, "spent": spent_key}
        steps = run(cls.program, server, app, refused, tmp_path_factory.mktemp("home"))
        calls = [call for call in provider.calls if call["model"] == name]
        yield Seen(steps, calls, provider.embedded_by(name), Refusal.objects.filter(key=spent).count())
        del provider.replies[name]

    def test_it_works(self, seen: Seen) -> None:
        assert seen.steps["plain"] == {"text": model.TEXT, "usage": USAGE}

    def test_streaming(self, seen: Seen) -> None:
        assert seen.steps["streamed"] == {"pieces": model.ANSWER, "usage": USAGE}

    def test_a_stream_that_breaks_off(self, seen: Seen) -> None:
        """It is an error, not a short answer."""
        assert "The model's provider failed." in seen.steps["broken_off"]["message"]

    def test_tools(self, seen: Seen) -> None:
        assert seen.steps["tools"] == {"text": "It says: Rain in Ulm."}
        assert seen.steps["tools_streamed"] == {"name": "weather", "arguments": {"city": "Ulm"}}
        asked, told = [call for call in seen.calls if "tools" in call and not call["stream"]][:2]
        assert [message["role"] for message in asked["messages"]] == ["user"]
        assert [message["role"] for message in told["messages"]] == ["user", "assistant", "tool"]
        assert told["messages"][2]["tool_call_id"] == told["messages"][1]["tool_calls"][0]["id"] == "c1"

    def test_structured_output(self, seen: Seen) -> None:
        assert seen.steps["structured"] == model.WEATHER
        call = next(call for call in seen.calls if "response_format" in call)
        properties = call["response_format"]["json_schema"]["schema"]["properties"]
        assert set(properties) == set(model.WEATHER)

    @pytest.mark.parametrize(("step", "status", "text"), REFUSALS)
    def test_refusals(self, seen: Seen, step: str, status: int, text: str) -> None:
        refusal = seen.steps[step]
        assert (refusal["error"], refusal["status"]) == (self.errors[step], status)
        assert text in refusal["message"]

    def test_its_refusals_are_documented(self) -> None:
        text = (PROJECT / "docs" / "clients.md").read_text()
        row = re.search(rf"^\| .+ \| {re.escape(self.package)} \| \S+ \| (.+) \|$", text, re.MULTILINE)
        assert row is not None
        assert row[1].split(" | ") == [f"`{self.errors[step]}`" for step, *_ in REFUSALS]

    def test_a_spent_key_is_not_tried_again(self, seen: Seen) -> None:
        assert seen.tries_of_spent_key == 1

    def test_it_waits_for_room(self, seen: Seen) -> None:
        """It was refused with 429 and `Retry-After: 1`, and tried again no sooner."""
        busy = seen.steps["busy"]
        assert busy["text"] == model.TEXT
        assert busy["seconds"] > 0.9


class WithEmbeddings:
    def test_embeddings(self, seen: Seen) -> None:
        assert seen.steps["embedded"] == {"dimensions": [256, 256]}


class WithResponses:
    """It speaks the newer of OpenAI's two forms too."""

    def test_responses(self, seen: Seen) -> None:
        told = "It says: Rain in Ulm."
        assert seen.steps["responses"] == {"text": model.TEXT, "usage": USAGE, "pieces": model.ANSWER, "told": told}


class WithFunctionForms:
    """It can get an answer in a form by the arguments of a function too."""

    def test_structured_output_by_function(self, seen: Seen) -> None:
        assert seen.steps["structured_by_function"] == model.WEATHER


def require(program: Program) -> None:
    if program.stamp.exists():
        return
    complaint = f"{program.stamp.relative_to(PROJECT)} was not found: make clients"
    if os.environ.get("REQUIRE_CLIENTS") == "1":
        pytest.fail(complaint)
    pytest.skip(complaint)


@contextmanager
def room_taken(server: Server, key: str) -> Iterator[None]:
    """Hold the one place of a key for its requests."""
    body = {"messages": [{"role": "user", "content": model.ENDLESS}], "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    with server.client.stream("POST", "/api/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status_code == 200
        yield


def run(program: Program, server: Server, app: App, refused: dict[str, str], home: Path) -> dict[str, dict[str, Any]]:
    """Run a client's steps, with nothing of the developer's shell but where programs lie; return what it saw."""
    busy, busy_key = factories.make_key(app=app)
    limit(busy, "open", "now", 1)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "CLIENT_BASE_URL": f"{server.base_url}/v1",
        "CLIENT_KEY": factories.make_key(app=app)[1],
        "CLIENT_BUSY_KEY": busy_key,
        "CLIENT_GLOBAL_KEY": refused["wrong_kind"],
        "CLIENT_PROVIDER_MODEL": app.model.name,
        "CLIENT_REFUSED_KEYS": json.dumps(refused),
        # Nothing is fetched or sent elsewhere.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LLM_USER_PATH": str(home),
        "TIKTOKEN_CACHE_DIR": str(TOKENIZERS),
    }
    out, err = home / "out", home / "err"
    with out.open("wb") as to_out, err.open("wb") as to_err, ExitStack() as taken:
        taken.enter_context(room_taken(server, busy_key))
        started = subprocess.Popen(program.command, cwd=home, env=environment, stdout=to_out, stderr=to_err)
        with ending(started) as process:
            is_refused = Refusal.objects.filter(key=busy).exists
            wait_for(lambda: is_refused() or process.poll() is not None, "the client is refused")
            taken.close()
            process.wait(60)
    assert process.returncode == 0, err.read_text()
    seen: dict[str, dict[str, Any]] = json.loads(out.read_text())
    return seen
