"""`manage.py apikey import-secrets`."""

import json
import pty
from io import BytesIO, TextIOWrapper

import pytest
from django.core.management.base import CommandError

from apikeys.keys import crypto
from apikeys.keys.models import ApiKey
from apikeys.management.foreign_secrets import MAXIMUM_BYTES, ImportRefused, read_rows
from tests.support import factories
from tests.support.commands import call, manage, refusal, shell


@pytest.fixture
def team():
    return factories.make_team()


@pytest.fixture
def owner(team):
    return factories.make_user(team)


def foreign() -> str:
    return factories.unique("sk-of-another-system")


def run(team, owner, text: str | bytes, *arguments: str):
    stdin = text.encode() if isinstance(text, str) else text
    default = ("--owner", owner.username) if owner else ()
    return manage("apikey", "import-secrets", "--team", team.pk, *default, *arguments, stdin=stdin)


def test_it_works(team, owner):
    other, app = factories.make_user(team), factories.make_app(team)
    first, second = foreign(), foreign()
    lines = ["name,plaintext,owner,app", f"one,{first},,", "", f'"two, quoted",{second},{other.username},{app.name}']
    result = run(team, owner, "\n".join(lines))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"Imported 2 key(s) into the team {team.name!r}.\n"
    one, two = ApiKey.objects.for_team(team.pk).order_by("name")
    assert (one.name, one.owner, one.app) == ("one", owner, None)
    assert (two.name, two.owner, two.app) == ("two, quoted", other, app)
    assert all(api_key.secrets.get().is_imported for api_key in (one, two))
    assert (one.last_four, two.last_four) == (first[-4:], second[-4:])


def test_the_imported_key_is_the_one_that_was_given(team, owner, settings):
    plaintext = foreign()
    run(team, owner, f"name,plaintext\none,{plaintext}\n")
    stored = team.api_keys.get().secrets.get()
    assert bytes(stored.digest) == crypto.digest(plaintext, settings.API_KEY_PEPPERS["p1"])


def test_json(team, owner):
    result = run(team, owner, f"name,plaintext\none,{foreign()}\ntwo,{foreign()}\n", "--json")
    facts = json.loads(result.stdout)
    assert facts["imported"] == 2
    assert set(facts["ids"]) == set(team.api_keys.values_list("pk", flat=True))


def test_what_spreadsheets_write(team, owner):
    """A byte order mark, CRLF, spaces, and another order of the columns."""
    first, second = foreign(), foreign()
    content = f'\ufeffPlaintext,Name\r\n {first} , one \r\n"{second}","客服"\r\n'
    assert run(team, owner, content).returncode == 0
    assert set(team.api_keys.values_list("name", flat=True)) == {"one", "客服"}


def test_all_or_nothing(team, owner):
    taken, free = foreign(), foreign()
    factories.make_key(secret=taken)
    said = refusal(run(team, owner, f"name,plaintext\none,{free}\ntwo,{taken}\n"))
    assert said == "Line 3: plaintext: It is in use already. Nothing was imported."
    assert not team.api_keys.exists()
    assert run(team, owner, f"name,plaintext\none,{free}\n").returncode == 0


@pytest.mark.parametrize(
    ("lines", "mistake"),
    [
        ([], "Line 1 must name the columns"),
        (["one,{}"], "Line 1 must name the columns"),
        (["name,secret", "one,{}"], "Line 1 must name the columns"),
        (["name,plaintext,name", "one,{},two"], "Line 1 must name the columns"),
        (["name,plaintext"], "The input has no keys."),
        (["name,plaintext", "one"], "Line 2 has 1 columns; the first line names 2."),
        (["name,plaintext", "one,{},three"], "Line 2 has 3 columns; the first line names 2."),
        (["name,plaintext", "one,{}", "", "two,{}"], "Line 4 has the same plaintext as line 2."),
        (["name,plaintext", "one,{}", '"two,sk'], "Line 3 is not valid CSV."),
        (["name,plaintext", '"one"x,{}'], "Line 2 is not valid CSV."),
        (["name,plaintext", "o\0ne,{}"], "Line 2 has a NUL character."),
        (["name,plaintext", "one,"], "Line 2: plaintext: An imported key has 16 to 250 characters"),
        (["name,plaintext", "one,short"], "Line 2: plaintext: An imported key has 16 to 250 characters"),
        (["name,plaintext", "one,{} x"], "Line 2: plaintext: An imported key has 16 to 250 characters"),
        (["name,plaintext", "one,{}é"], "Line 2: plaintext: An imported key has 16 to 250 characters"),
        (["name,plaintext", "one,{}" + "x" * 250], "Line 2: plaintext: An imported key has 16 to 250 characters"),
        (["name,plaintext", "one,{}-" + "a" * 24], "Line 2: plaintext: It ends like a key that names an app"),
        (["name,plaintext", ",{}"], "Line 2: name: This field cannot be blank."),
        (["name,plaintext", "x" * 101 + ",{}"], "Line 2: name: Ensure this value has at most 100 characters"),
        (["name,plaintext,owner", "one,{},nobody"], "Line 2 names an owner that does not exist."),
        (["name,owner,plaintext", "one,{},sk-mixed-up-columns"], "Line 2 names an owner that does not exist."),
        (["name,app,plaintext", "one,{},sk-mixed-up-columns"], "Line 2 names an app that the team does not have"),
    ],
)
def test_refused_without_repeating_a_plaintext(team, owner, monkeypatch, lines, mistake):
    plaintext = foreign()
    content = "\n".join(lines).replace("{}", plaintext)
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(content.encode())))
    with pytest.raises(CommandError) as refused:
        call("apikey", "import-secrets", "--team", team.pk, "--owner", owner.username)
    said = str(refused.value)
    assert said.startswith(mistake)
    assert said.endswith("Nothing was imported.")
    assert plaintext not in said
    assert not team.api_keys.exists()


def test_not_utf8(team, owner):
    result = run(team, owner, b"name,plaintext\none,sk-\xff-of-another-system\n")
    assert refusal(result) == "Line 2 is not valid UTF-8. Nothing was imported."


def test_no_owner(team):
    result = run(team, None, f"name,plaintext\none,{foreign()}\n")
    assert refusal(result) == "Line 2 names no owner, and no --owner is given. Nothing was imported."


def test_owner_of_another_team(team):
    stranger = factories.make_user(factories.make_team())
    result = run(team, stranger, f"name,plaintext\none,{foreign()}\n")
    assert refusal(result) == "Line 2: owner: The owner must be a member of the team. Nothing was imported."


def test_unknown_team_and_default_owner(team, owner):
    said = refusal(manage("apikey", "import-secrets", "--team", "nope", stdin=b"name,plaintext\n"))
    assert said == "There is no team 'nope'."
    said = refusal(manage("apikey", "import-secrets", "--team", team.pk, "--owner", "nobody", stdin=b"x"))
    assert said == "There is no user 'nobody'."


def test_a_line_number_counts_the_lines_within_a_quoted_field():
    content = b'name,plaintext\n"two\nlines",sk-of-another-system-1\nthree\n'
    with pytest.raises(ImportRefused, match="Line 4 has 1 columns"):
        read_rows(BytesIO(content))


def test_too_long():
    with pytest.raises(ImportRefused, match="Import it in parts"):
        read_rows(BytesIO(b"x" * (MAXIMUM_BYTES + 1)))


def test_a_row_never_shows_its_plaintext():
    (row,) = read_rows(BytesIO(b"name,plaintext\none,sk-of-another-system-1\n"))
    assert row.plaintext == "sk-of-another-system-1"
    assert "sk-of" not in repr(row)


def test_a_terminal_is_refused(team, owner, monkeypatch):
    """A person would type or paste keys that everybody behind them can read."""
    _, terminal = pty.openpty()
    with open(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(CommandError, match="on standard input"):
            call("apikey", "import-secrets", "--team", team.pk, "--owner", owner.username)


def test_closed_input(team, owner):
    result = shell(f"manage apikey import-secrets --team {team.pk} --owner {owner.username} <&-")
    assert "on standard input" in refusal(result)


def test_no_plaintext_is_taken_as_an_argument(team, owner):
    plaintext = "sk-" + "a" * 48
    for arguments in (["--secret", plaintext], ["--plaintext", plaintext], [plaintext]):
        said = refusal(run(team, owner, "", *arguments))
        assert said.startswith("unrecognized arguments")
        assert plaintext not in said
