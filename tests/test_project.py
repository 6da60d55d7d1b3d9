"""Rules about the project itself: what is documented, who imports whom, what is locked, how files are named."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment import PROJECT, setting_names

# Who may import whom: each package, and what it may import besides itself.
ARROWS: dict[str, set[str]] = {
    "apikeys": set(),
    "datasets": {"apikeys"},
    "chat": {"apikeys", "datasets"},
    "fastgpt_site": {"apikeys", "datasets", "chat"},
}
PURE = [
    "apikeys/keys/crypto.py",
    "apikeys/object_ids.py",
    "apikeys/storable_text.py",
    "chat/completions/sse.py",
    "chat/completions/request.py",
]
PURE += [
    "datasets/vectors/static_model.py",
    "datasets/texts.py",
    "datasets/conversion/chunks.py",
    "datasets/conversion/formats.py",
]
PURE += [f"datasets/conversion/{name}.py" for name in ("items", "documents", "tables")]
NOT_A_NOUN = {"utils", "helpers", "services", "common", "core", "selectors", "signals", "mixins"}


def modules(package: str) -> list[Path]:
    return [path for path in sorted((PROJECT / package).rglob("*.py")) if "migrations" not in path.parts]


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from package import module` names the module only here.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_any(path: Path, *names: str) -> list[str]:
    return [found for found in imports(path) if any(found == name or found.startswith(f"{name}.") for name in names)]


def test_settings_are_documented_in_readme_and_env_example():
    table = re.findall(r"^\| `([A-Z][A-Z0-9_]*)` \|", (PROJECT / "README.md").read_text(), re.MULTILINE)
    example = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (PROJECT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(setting_names())
    assert sorted(example) == sorted(setting_names())


@pytest.mark.parametrize("package", ARROWS)
def test_imports_go_one_way(package):
    forbidden = ARROWS.keys() - ARROWS[package] - {package}
    wrong = {
        str(path.relative_to(PROJECT)): found
        for path in modules(package)
        if (found := imports_any(path, *forbidden, "tests"))
    }
    assert wrong == {}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_no_django(name):
    assert imports_any(PROJECT / name, "django", "rest_framework") == []


@pytest.mark.parametrize("package", ARROWS)
def test_models_import_no_rest_framework(package):
    for path in modules(package):
        if path.stem == "models":
            assert imports_any(path, "rest_framework") == []


def test_completions_know_no_http():
    assert imports_any(PROJECT / "chat" / "completions" / "completion.py", "rest_framework", "django.http") == []


@pytest.mark.parametrize("path", sorted((PROJECT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_requirements_are_hashed_and_name_no_index(path):
    text = path.read_text()
    assert not re.search(r"https?://|--index-url|--extra-index-url|--find-links", text)
    entries = re.sub(r"\\\n", " ", text).splitlines()
    requirements = [line for line in entries if line and not line.lstrip().startswith("#")]
    assert requirements
    assert [line for line in requirements if "--hash=sha256:" not in line or "==" not in line] == []


def test_every_file_is_named_by_a_noun_of_the_domain():
    paths = [path for package in [*ARROWS, "tests"] for path in modules(package)]
    named = {part.removesuffix(".py") for path in paths for part in path.relative_to(PROJECT).parts}
    assert named & NOT_A_NOUN == set()


def test_environment_is_read_in_settings_alone():
    """Handing the whole environment on to a child process is not reading it."""
    reads = re.compile(r"os\.getenv|os\.environ(?:\.get|\[)")
    found = [
        str(path.relative_to(PROJECT))
        for package in ARROWS
        for path in modules(package)
        if reads.search(path.read_text())
    ]
    assert found == []
