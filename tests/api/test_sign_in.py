"""Signing in to the admin: trying passwords is slowed, and nobody is locked out for good."""

from datetime import timedelta

import httpx2
import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone

from apikeys.client_address import client_address
from apikeys.sign_in.throttle import ADDRESS, NAME, PAIR, SLOTS, Attempt, SignInCount
from tests.conftest import Server
from tests.support import factories

LOGIN = "/admin/login/"
numbers = iter(range(1, 250))


def new_address() -> str:
    """An address that no other test has tried from; the server believes it from the trusted proxy 127.0.0.9."""
    return f"203.0.113.{next(numbers)}"


def sign_in(server: Server, name: str, password: str, address: str) -> httpx2.Response:
    transport = httpx2.HTTPTransport(local_address="127.0.0.9")
    with httpx2.Client(base_url=server.url, transport=transport, timeout=30, trust_env=False) as client:
        token = client.get(LOGIN).cookies["csrftoken"]
        form = {"username": name, "password": password, "csrfmiddlewaretoken": token, "next": "/admin/"}
        return client.post(LOGIN, data=form, headers={"X-Forwarded-For": address, "Cookie": f"csrftoken={token}"})


def is_in(response: httpx2.Response) -> bool:
    return response.status_code == 302 and "sessionid" in response.cookies


def is_slowed(response: httpx2.Response) -> bool:
    return "Too many attempts to sign in." in response.text


def passes(attempt: Attempt) -> None:
    """Time goes by until it is free again."""
    SignInCount.objects.filter(slot__in=attempt.slots).update(blocked_until=timezone.now() - timedelta(seconds=1))


def lasts(*attempts: Attempt) -> None:
    """Make a wait that has begun so long that the test cannot outlast it, however slow the machine is."""
    for attempt in attempts:
        begun = SignInCount.objects.filter(slot__in=attempt.slots, blocked_until__gt=F("last_at"))
        assert begun.update(blocked_until=timezone.now() + timedelta(hours=1))


def attempt_of(name: str, address: str) -> Attempt:
    return Attempt(name, client_address(address, ""))


def test_it_works(server: Server) -> None:
    user = factories.make_user()
    assert is_in(sign_in(server, user.username, factories.PASSWORD, new_address()))


def test_too_many_attempts(server: Server) -> None:
    user, address = factories.make_user(), new_address()
    for _ in range(PAIR.free):
        assert "Please enter the correct username and password" in sign_in(server, user.username, "x", address).text
    lasts(attempt_of(user.username, address))
    slowed = sign_in(server, user.username, factories.PASSWORD, address)
    assert is_slowed(slowed)
    assert not is_in(slowed)
    # Neither is a password looked at when the name is spelt in another case.
    assert is_slowed(sign_in(server, user.username.upper(), "x", address))
    assert user.username not in server.log()
    # From elsewhere its owner gets in.
    assert is_in(sign_in(server, user.username, factories.PASSWORD, new_address()))
    passes(attempt_of(user.username, address))
    assert is_in(sign_in(server, user.username, factories.PASSWORD, address))


def test_unknown_name_is_answered_like_a_known_one(server: Server) -> None:
    known, unknown = factories.make_user().username, factories.unique("nobody")
    addresses = [new_address(), new_address()]
    for number in range(PAIR.free + 1):
        if number == PAIR.free:
            lasts(attempt_of(known, addresses[0]), attempt_of(unknown, addresses[1]))
        answers = [
            sign_in(server, name, "x", address) for name, address in zip([known, unknown], addresses, strict=True)
        ]
        said = [" ".join(answer.text.partition("errornote")[2].partition("<form")[0].split()) for answer in answers]
        assert said[0].replace(known, "") == said[1].replace(unknown, "")
        assert said[0]
    assert all(map(is_slowed, answers))


def test_wait_doubles_and_ends() -> None:
    attempt = attempt_of(factories.unique("name"), new_address())
    waits = []
    for _ in range(PAIR.free + 12):
        assert attempt.count() == 0
        waits.append(attempt.count())
        passes(attempt)
    assert waits[0] == 0
    assert max(waits) == PAIR.most
    assert sorted(waits) == waits


def test_many_names_from_one_address() -> None:
    address = new_address()
    for _ in range(ADDRESS.free):
        assert attempt_of(factories.unique("name"), address).count() == 0
    assert attempt_of(factories.unique("name"), address).count() > 0
    assert attempt_of(factories.unique("name"), new_address()).count() == 0


def test_one_name_from_many_addresses_is_slowed_and_not_locked() -> None:
    name = factories.unique("name")
    home = attempt_of(name, new_address())
    assert home.count() == 0
    home.succeed()
    waits = []
    for _ in range(NAME.free + 10):
        stranger = attempt_of(name, new_address())
        waits.append(stranger.count())
        if waits[-1]:
            passes(stranger)
            stranger.count()
    assert 0 < max(waits) <= NAME.most
    assert attempt_of(name, new_address()).count() > 0
    # Where the owner has signed in before, they still do.
    assert home.count() == 0


def test_guesses_from_a_shared_address_do_not_slow_who_signed_in_there() -> None:
    address = new_address()
    known = attempt_of(factories.unique("known"), address)
    assert known.count() == 0
    known.succeed()
    waits = [attempt_of(factories.unique("invented"), address).count() for _ in range(ADDRESS.free + 4)]
    assert waits[-1] > 0
    assert known.count() == 0
    known.succeed()
    # Guesses at the known name are counted all the same, and it pays for no others.
    assert [known.count() > 0 for _ in range(PAIR.free + 1)] == [False] * PAIR.free + [True]
    assert attempt_of(factories.unique("invented"), address).count() > 0


def test_success_does_not_pay_for_guesses_at_others() -> None:
    address = new_address()
    own = factories.unique("own")
    for number in range(ADDRESS.free - 1):
        assert attempt_of(factories.unique("name"), address).count() == 0, number
        mine = attempt_of(own, address)
        if mine.count() == 0:
            mine.succeed()
    attempt_of(factories.unique("name"), address).count()
    assert attempt_of(factories.unique("name"), address).count() > 0


def test_an_ipv6_network_is_one_place() -> None:
    first, second = attempt_of("a", "2001:db8:1:2::1"), attempt_of("a", "2001:db8:1:2:ffff::9")
    assert first.slots == second.slots
    assert attempt_of("a", "2001:db8:1:3::1").slots != first.slots


def test_attempts_at_the_same_time_count_each_other(server: Server) -> None:
    from concurrent.futures import ThreadPoolExecutor

    user, address = factories.make_user(), new_address()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: sign_in(server, user.username, "x", address), range(12)))
    assert sum(not is_slowed(answer) for answer in answers) <= PAIR.free


@pytest.mark.parametrize("kind", [PAIR, ADDRESS, NAME])
def test_table_is_bounded_and_tells_of_nobody(kind) -> None:
    attempt = attempt_of(factories.unique("name"), new_address())
    attempt.count()
    assert kind.number * SLOTS <= attempt.slots[kind.number] < (kind.number + 1) * SLOTS
    with connection.cursor() as cursor:
        cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'apikeys_signincount'")
        columns = {name for (name,) in cursor.fetchall()}
    assert columns == {"slot", "attempts", "last_at", "blocked_until", "signed_in_at"}
