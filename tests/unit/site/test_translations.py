"""The catalog of Simplified Chinese: whole, of the same placeholders as the source, and compiled."""

import ast
import gettext
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.apps import apps
from django.utils.translation.template import templatize

from fastgpt_site.management.commands.makemessages import UNTRANSLATED
from tests.environment import PROJECT

CATALOG = PROJECT / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
FUNCTIONS = {"gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy", "pgettext", "pgettext_lazy"}
LITERAL = r"""(u?'(?:[^'\\]|\\.)*'|u?"(?:[^"\\]|\\.)*")"""
# `templatize` turns a template into such calls.
CALL = re.compile(rf"\b(_|n?gettext|pgettext)\({LITERAL}(?:, {LITERAL})?")
# %(name)s, %s, {name} and {name:s}, {{ name }}, HTML tags; "80 % or more" has none.
PLACEHOLDER = re.compile(r"%\(\w+\)[sdr]|%[sd]|%%|\{\{? ?\w*(?::\w+)? ?\}?\}|</?\w[^>]*>")


@dataclass
class Entry:
    flags: str = ""
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        return self.texts["msgid"]

    @property
    def key(self) -> str:
        """As compiled catalogs have it, and as `calls` gives it."""
        context = self.texts.get("msgctxt")
        return self.message if context is None else f"{context}\x04{self.message}"

    @property
    def translation(self) -> str:
        # Chinese has one form for any number.
        return self.texts["msgstr[0]" if "msgid_plural" in self.texts else "msgstr"]


def entries() -> list[Entry]:
    """Those of the .po file, but not its header."""
    found = []
    for block in CATALOG.read_text().strip().split("\n\n"):
        entry, name = Entry(), ""
        for line in block.splitlines():
            if line.startswith("#"):
                entry.flags += line if line.startswith("#,") else ""
                continue
            if not line.startswith('"'):
                name, _, line = line.partition(" ")
                entry.texts[name] = ""
            entry.texts[name] += ast.literal_eval(line)
        found.append(entry)
    return found[1:]


def calls(source: str) -> Iterator[str]:
    """The texts that a Python module gives to gettext's functions, under whatever name it imports them."""
    tree = ast.parse(source)
    names = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "django.utils.translation"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and names.get(node.func.id) in FUNCTIONS:
            texts = [text.value for text in node.args if isinstance(text, ast.Constant)]
            assert texts, f"line {node.lineno}: not a text that can be gathered"
            yield "\x04".join(texts[:2]) if names[node.func.id].startswith("p") else texts[0]


def template_calls(source: str) -> Iterator[str]:
    for name, first, second in CALL.findall(templatize(source)):
        text = ast.literal_eval(first)
        # In a template's own text % is written once; the catalog has it as Django's tags look it up.
        yield f"{text}\x04{ast.literal_eval(second)}" if name == "pgettext" else text


def files() -> Iterator[Path]:
    """Modules and templates of the project, and of the installed packages that bring no catalog."""
    for folder in ("apikeys", "datasets", "chat", "fastgpt_site", "templates"):
        yield from (PROJECT / folder).rglob("*.*")
    for app in apps.get_app_configs():
        if app.name.partition(".")[0] in UNTRANSLATED:
            paths = [path.relative_to(app.path) for path in Path(app.path).rglob("*.*")]
            yield from (Path(app.path) / path for path in paths if not {"contrib", "management"} & set(path.parts))


def gathered() -> dict[str, str]:
    """Each text of the source, and a file that has it."""
    found = {}
    for path in files():
        if path.suffix in (".py", ".html", ".txt"):
            texts = calls(path.read_text()) if path.suffix == ".py" else template_calls(path.read_text())
            found |= dict.fromkeys(texts, path.name)
    return found


def placeholders(text: str) -> list[str]:
    return sorted(PLACEHOLDER.findall(text))


def test_every_entry_has_a_translation():
    assert [entry.message for entry in entries() if not entry.translation.strip()] == []
    assert len(entries()) > 500


def test_no_entry_is_fuzzy():
    assert [entry.message for entry in entries() if "fuzzy" in entry.flags] == []
    assert "#~" not in CATALOG.read_text()


def test_placeholders_and_tags_stay():
    """With a plural both forms have the same, or the translation those of the form for many."""
    wrong = {
        entry.message: entry.translation
        for entry in entries()
        if placeholders(entry.texts.get("msgid_plural", entry.message)) != placeholders(entry.translation)
    }
    assert wrong == {}


def test_blanks_and_line_breaks_at_the_ends_stay():
    wrong = [
        entry.message
        for entry in entries()
        if (entry.message[:1] == "\n") != (entry.translation[:1] == "\n")
        or (entry.message[-1:] == "\n") != (entry.translation[-1:] == "\n")
    ]
    assert wrong == []


def test_chinese_punctuation_is_full_width():
    """Where Chinese characters stand before it, and no placeholder or code."""
    assert [entry.translation for entry in entries() if re.search(r"[\u4e00-\u9fff][,.:;?!]", entry.translation)] == []


def test_compiled_is_what_is_written():
    with CATALOG.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    written = {(entry.key, 0) if "msgid_plural" in entry.texts else entry.key: entry.translation for entry in entries()}
    assert {key: text for key, text in compiled.items() if key} == written


def test_every_text_of_the_source_is_in_the_catalog():
    """Otherwise: make messages, and translate what it adds."""
    source, known = gathered(), {entry.key for entry in entries()}
    assert len(source) > 300
    assert {text: name for text, name in source.items() if text not in known} == {}


def test_no_path_of_a_machine_is_in_the_catalog():
    assert re.findall(r"^#:.*|^.*(?:/tmp/|site-packages).*", CATALOG.read_text(), re.MULTILINE) == []


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ('from django.utils.translation import gettext_lazy as _\n_("a " "b")', ["a b"]),
        ("from django.utils.translation import ngettext\nngettext('a', 'b', n)", ["a"]),
        ("from django.utils.translation import pgettext\npgettext('c', 'a')", ["c\x04a"]),
        ("from elsewhere import gettext\ngettext('a')", []),
    ],
)
def test_texts_of_a_module(source, texts):
    assert list(calls(source)) == texts


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ('{% translate "a\'s" %}', ["a's"]),
        ('{% translate "a" context "c" %}', ["c\x04a"]),
        ("{% blocktranslate with b=c.d trimmed %}\n 5 % of {{ b }}\n{% endblocktranslate %}", ["5 %% of %(b)s"]),
        ("{% blocktranslate count n=m %}one{% plural %}many{% endblocktranslate %}", ["one"]),
        ('{{ a|default:_("none") }}', ["none"]),
    ],
)
def test_texts_of_a_template(source, texts):
    assert list(template_calls(source)) == texts
