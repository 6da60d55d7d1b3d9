"""A start without good secrets ends with a message that says how to make one."""

import subprocess
import sys

import pytest

from tests.environment import PROJECT
from tests.support.processes import environment

GOOD = {
    "DATABASE_URL": "postgres://u:p@127.0.0.1:1/x",
    "SECRET_KEY": "s" * 40,
    "API_KEY_PEPPERS": f"p1:{'0a' * 32}",
    "ENCRYPTION_KEYS": "0b" * 32,
}


def start(tmp_path: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import django; django.setup()"],
        cwd=PROJECT,
        env={**environment(tmp_path, **{**GOOD, **variables}), "DJANGO_SETTINGS_MODULE": "fastgpt_site.settings"},  # type: ignore[arg-type]
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_works(tmp_path: object) -> None:
    assert start(tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", ""),
        ("SECRET_KEY", "tooshort"),
        ("METRICS_TOKEN", "tooshort"),
        ("API_KEY_PEPPERS", ""),
        ("API_KEY_PEPPERS", "p1:abcd"),
        ("API_KEY_PEPPERS", "p1:" + "zz" * 32),
        ("API_KEY_PEPPERS", "0a" * 32),
        ("API_KEY_PEPPERS", f"p1:{'0a' * 32},p1:{'0b' * 32}"),
        ("ENCRYPTION_KEYS", ""),
        ("ENCRYPTION_KEYS", "0b" * 8),
    ],
)
def test_a_bad_secret_stops_the_start(tmp_path: object, name: str, value: str) -> None:
    result = start(tmp_path, **{name: value})
    assert result.returncode != 0
    message = result.stderr.strip().splitlines()[-1]
    assert name in message
    assert "secrets.token_hex(32)" in message or "id of its own" in message
    assert value == "" or value not in message
