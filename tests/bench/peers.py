"""The gateways of others, each installed once into a folder of its own, and started with the least switched on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fastgpt_site.process.supervisor import free_port
from tests.bench.load import BenchError
from tests.bench.machine import Process
from tests.bench.upstream import MODEL
from tests.environment import PROJECT

FOLDER = PROJECT / ".bench-peers"
INSTALL_SECONDS = 1800
PORTKEY = "Portkey"
LITELLM = "LiteLLM"

# Portkey's gateway listens on every address of the machine and has no option for it.
LISTEN_ON_LOOPBACK = """
import net from 'node:net';
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
    return listen.call(this, {port, host: '127.0.0.1'}, rest.findLast((one) => typeof one === 'function'));
};
"""
# JSON is YAML too. Without a master key LiteLLM asks nobody who they are, and without a database it records nothing.
LITELLM_SETTINGS = {"litellm_settings": {"telemetry": False, "num_retries": 0}, "general_settings": {}}


class NotInstalledError(Exception):
    """A peer could not be installed. The text says why."""


@dataclass(frozen=True)
class RunningPeer:
    process: Process
    port: int
    version: str
    switched_on: str
    headers: Mapping[str, str]
    log_path: Path


@dataclass(frozen=True)
class Peer:
    """`commands` gives the ones that install it into a folder; `start` takes that folder, another for its files and
    log, its core, and the upstream's port."""

    commands: Callable[[Path], Sequence[Sequence[str]]]
    start: Callable[[Path, Path, int, int], RunningPeer]


def install(name: str) -> Path:
    """Return the folder that the peer is installed in. Raises NotInstalledError."""
    folder = FOLDER / name.lower()
    stamp = folder / ".installed"
    if stamp.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"installing {name} into {folder.relative_to(PROJECT)} ...", file=sys.stderr, flush=True)
    for command in PEERS[name].commands(folder):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotInstalledError(f"{command[0]}: {error}") from error
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            raise NotInstalledError(f"{command[0]} ended with {done.returncode}: {said[-1]}")
    stamp.touch()
    return folder


def _portkey_commands(folder: Path) -> list[list[str]]:
    options = ["--no-audit", "--no-fund", "--loglevel=error"]
    return [["npm", "install", f"--prefix={folder}", *options, "@portkey-ai/gateway@latest"]]


def _start_portkey(folder: Path, files: Path, core: int, upstream_port: int) -> RunningPeer:
    package = folder / "node_modules" / "@portkey-ai" / "gateway"
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    version = f"{json.loads((package / 'package.json').read_text())['version']}, node {node}"
    port = free_port()
    headers = {
        "Authorization": "Bearer x",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
    }
    program = str(package / "build" / "start-server.js")
    command = ["node", "--import", f"data:text/javascript,{quote(LISTEN_ON_LOOPBACK)}", program, f"--port={port}"]
    process = _start([*command, "--headless"], files, core, {"NODE_ENV": "production"})
    switched_on = "nothing: no keys, no log, no record, production mode"
    return RunningPeer(process, port, version, switched_on, headers, _log_path(files))


def _litellm_commands(folder: Path) -> list[list[str]]:
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [[sys.executable, "-m", "venv", str(folder)], [*pip, "litellm[proxy]"]]


def _start_litellm(folder: Path, files: Path, core: int, upstream_port: int) -> RunningPeer:
    python = [str(folder / "bin" / "python"), "-c"]
    code = "from importlib.metadata import version; print(version('litellm') + ', uvicorn ' + version('uvicorn'))"
    version = subprocess.run([*python, code], capture_output=True, text=True, check=True).stdout.strip()
    parameters = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "x"}
    model = {"model_name": MODEL, "litellm_params": parameters}
    configuration = files / "litellm.yaml"
    configuration.write_text(json.dumps({"model_list": [model], **LITELLM_SETTINGS}))
    environment = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # Without a master key it starts only where this is said. It listens on loopback alone.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    port = free_port()
    command = [str(folder / "bin" / "litellm"), f"--config={configuration}", "--host=127.0.0.1", f"--port={port}"]
    process = _start([*command, "--num_workers=1"], files, core, environment)
    switched_on = "nothing: no master key, no database, no log, one worker"
    return RunningPeer(process, port, version, switched_on, {}, _log_path(files))


def _start(command: Sequence[str], files: Path, core: int, environment: Mapping[str, str]) -> Process:
    """Start a peer with none of this project's settings: it reads some of the same names."""
    own = {"PATH": os.environ["PATH"], "HOME": str(files), **environment}
    with _log_path(files).open("wb") as log:
        try:
            return Process(command, core=core, log=log, environment=own)
        except OSError as error:
            raise BenchError(f"{command[0]} cannot be started: {error}") from error


def _log_path(files: Path) -> Path:
    return files / "log"


PEERS = {
    PORTKEY: Peer(_portkey_commands, _start_portkey),
    LITELLM: Peer(_litellm_commands, _start_litellm),
}
