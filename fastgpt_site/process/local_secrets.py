"""Secrets that a first start makes for itself, and the checks that every start makes of them."""

import os
import secrets
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

FILE_NAME = "secrets.env"
MINIMUM_CHARACTERS = 32
HOW = "python3 -c 'import secrets; print(secrets.token_hex(32))'"


def load(env: environ.Env, data_dir: Path, *, create: bool) -> None:
    """Read the secrets file into the environment, which wins; with `create`, make it on the first start."""
    path = data_dir / FILE_NAME
    if create and not path.exists():
        if (data_dir / "postgres" / "PG_VERSION").exists():
            raise ImproperlyConfigured(
                f"{path} is missing, but a database lies beside it. New secrets would make every key in it "
                f"unusable: restore the file from your backup, or move {data_dir} away to start over."
            )
        _create(path)
    if path.exists():
        env.read_env(path)


def _create(path: Path) -> None:
    # All secrets are written at once, readable by the owner alone; of several first starts at once, one wins.
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Created on the first start. Back this file up with the database: without it no key can be checked.",
        f"SECRET_KEY={secrets.token_hex(32)}",
        f"API_KEY_PEPPERS=p1:{secrets.token_hex(32)}",
        f"ENCRYPTION_KEYS={secrets.token_hex(32)}",
        f"DATABASE_PASSWORD={secrets.token_hex(32)}",
    ]
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def require_if_set(env: environ.Env, name: str) -> str:
    return require(env, name) if env.str(name, default="") else ""


def require(env: environ.Env, name: str) -> str:
    value: str = env.str(name, default="")
    if len(value) < MINIMUM_CHARACTERS:
        state = "is not set" if not value else f"is shorter than {MINIMUM_CHARACTERS} characters"
        raise ImproperlyConfigured(f"{name} {state}. Generate one with: {HOW}")
    return value


def require_peppers(env: environ.Env, name: str) -> dict[str, bytes]:
    """Parse `id:hex,id:hex` as {id: pepper of at least 32 bytes}, in order: the first signs, all verify."""
    peppers: dict[str, bytes] = {}
    for item in filter(None, env.str(name, default="").split(",")):
        pepper_id, _, value = item.strip().partition(":")
        if not pepper_id or len(pepper_id) > 20 or pepper_id in peppers:
            raise ImproperlyConfigured(f"{name}: each pepper needs an id of its own, as in p1:<64 hex digits>.")
        peppers[pepper_id] = _hex_key(name, value)
    if not peppers:
        raise ImproperlyConfigured(f"{name} is not set. Write it as p1:<hex>, and generate the hex part with: {HOW}")
    return peppers


def require_hex_keys(env: environ.Env, name: str) -> list[bytes]:
    """Parse comma-separated hex keys of 32 bytes; the first encrypts, all decrypt."""
    keys = [_hex_key(name, item.strip())[:32] for item in filter(None, env.str(name, default="").split(","))]
    if not keys:
        raise ImproperlyConfigured(f"{name} is not set. Generate one with: {HOW}")
    return keys


def _hex_key(name: str, value: str) -> bytes:
    try:
        key = bytes.fromhex(value)
    except ValueError:
        key = b""
    if len(key) < 32:
        raise ImproperlyConfigured(
            f"{name}: a key of at least 64 hexadecimal digits is needed. Generate one with: {HOW}"
        )
    return key
