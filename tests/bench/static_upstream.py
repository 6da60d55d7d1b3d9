"""An upstream that is never what is measured: nginx with one worker and one answer, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastgpt_site.process.supervisor import free_port
from tests.bench import upstream
from tests.bench.machine import Process
from tests.bench.waiting import wait_for_port

# The answer stands between single quotes, of which it has none.
CONFIGURATION = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location = /v1/chat/completions {{ return 200 '{answer}'; }}
    }}
}}
"""


@dataclass(frozen=True)
class StaticUpstream:
    port: int
    name: str


@contextmanager
def running_static_upstream(core: int) -> Iterator[StaticUpstream]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if program is None:
            process = Process([sys.executable, "-m", "tests.bench.upstream"], core=core)
            name = "the bench's own: nginx is not installed"
        else:
            port = free_port()
            path = Path(folder) / "nginx.conf"
            path.write_text(CONFIGURATION.format(folder=folder, port=port, answer=upstream.COMPLETION))
            # nginx prints its version where errors go.
            name = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr.split()[-1]
            process = Process([program, "-e", f"{folder}/nginx.log", "-c", str(path)], core=core)
        try:
            if program is None:
                port = int(process.read_line())
            else:
                wait_for_port(process, port)
            yield StaticUpstream(port, name)
        finally:
            process.stop()
