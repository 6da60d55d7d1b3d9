"""The proxies that the server may stand behind, each with the least configuration: they report the client's address."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastgpt_site.process.supervisor import responds
from tests.bench.load import BenchError
from tests.support.processes import free_port, wait_for

NGINX = """
daemon off;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""
HAPROXY = """
global
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    option forwardfor
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    server site 127.0.0.1:{upstream}
"""
PROXIES = {"nginx": (NGINX, "-c"), "haproxy": (HAPROXY, "-f")}


@contextmanager
def running_proxy(name: str, upstream: int) -> Iterator[int]:
    """Give the port of a proxy in front of the server at the port `upstream`."""
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise BenchError(f"{name} is not installed. On Debian: apt-get install {name}")
    configuration, option = PROXIES[name]
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        port = free_port()
        path = Path(folder) / "configuration"
        path.write_text(configuration.format(folder=folder, port=port, upstream=upstream))
        with subprocess.Popen([program, option, str(path)], stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(lambda: responds("127.0.0.1", port, "/healthz"), f"{name} answers")
                yield port
            finally:
                process.terminate()
