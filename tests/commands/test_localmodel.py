"""The local model behind its OpenAI-compatible API."""

import http.client
import json
import signal
import socket

import pytest

from tests.support.processes import free_port, manage, running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_works(data_dir, number):
    port = free_port()
    with running("localmodel", "--port", str(port), data_dir=data_dir) as command:
        command.wait_for_output(f"answers on http://127.0.0.1:{port}/v1.")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        question = {"messages": [{"role": "user", "content": "Name one fruit."}], "max_tokens": 8}
        connection.request("POST", "/v1/chat/completions", json.dumps(question), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        assert answer["choices"][0]["message"]["content"].strip()
        assert answer["model"] == "smollm2-135m-instruct"
        assert answer["usage"]["completion_tokens"] <= 8
        assert command.end(number) == 0
    assert len(command.out) == 1
    assert command.err == []
    assert not (data_dir / "postgres").exists()


@pytest.mark.parametrize("host", ["::", "192.0.2.1", "example.org"])
def test_only_loopback(data_dir, host):
    result = manage("localmodel", "--host", host, data_dir=data_dir)
    assert result.returncode == 1
    assert result.stderr.strip() == f"CommandError: --host must be a loopback address such as 127.0.0.1, not {host}."


def test_port_in_use(data_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = manage("localmodel", "--port", str(port), data_dir=data_dir)
    assert result.returncode == 1
    assert f"Cannot listen on 127.0.0.1 port {port}: Address already in use." in result.stderr
