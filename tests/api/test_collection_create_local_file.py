"""`core/dataset/collection/create/localFile`: a collection from a file, which is never held in memory."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from datasets.models import Collection, ImportState, Kind, SourcePiece
from tests.api.test_policy import session_of
from tests.conftest import Server
from tests.support import factories
from tests.support.processes import wait_for
from tests.support.refusals import check_body, check_refusal
from tests.support.sources import ROOT, made_by, read, texts_of, upload

PATH = f"{ROOT}/localFile"
MIB = 1024 * 1024


def resident_bytes(server: Server) -> int:
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("every process has one")


def test_it_works(server: Server) -> None:
    dataset = factories.make_dataset()
    folder = factories.make_collection(dataset, kind=Kind.FOLDER)
    _, key = factories.make_key(dataset.team)
    content = "q,a\n导演是谁,李安\nWho wrote the music?,Tan Dun\n".encode()
    response = upload(server, key, "film.csv", content, datasetId=dataset.pk, parentId=folder.pk, metadata={"a": 1})
    collection = made_by(response)
    assert (collection.name, collection.kind, collection.state) == ("film.csv", Kind.FILE, ImportState.WAITING)
    assert (collection.parent, collection.metadata) == (folder, {"a": 1})
    read(collection)
    assert texts_of(collection) == [("导演是谁", "李安"), ("Who wrote the music?", "Tan Dun")]


def test_another_name(server: Server) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    assert made_by(upload(server, key, "a.txt", b"x", datasetId=dataset.pk, name="The film")).name == "The film"


def test_names_that_turn_a_list_around(server: Server) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    assert made_by(upload(server, key, "a\u202etxt.fdp.txt", b"x", datasetId=dataset.pk)).name == "atxt.fdp.txt"


def test_staff(server: Server) -> None:
    dataset = factories.make_dataset()
    cookies = session_of(factories.make_user(dataset.team, permissions=("datasets.add_collection",)))
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    check_refusal(upload(server, None, "a.txt", b"x", datasetId=dataset.pk, headers=headers), "csrf_failed")
    headers["X-CSRFToken"] = cookies["csrftoken"]
    made_by(upload(server, None, "a.txt", b"x", datasetId=dataset.pk, headers=headers))


def test_a_large_file_takes_no_memory(server: Server) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    made_by(upload(server, key, "a.txt", b"warm", datasetId=dataset.pk))
    before = resident_bytes(server)
    collection = made_by(upload(server, key, "large.txt", b"0123456789abcdef" * 65536 * 60, datasetId=dataset.pk))
    assert SourcePiece.objects.filter(collection=collection).count() == 240
    assert resident_bytes(server) - before < 30 * MIB
    collection.delete()


def body_of(dataset_id: str, size: int) -> Iterator[bytes]:
    """Yield a form with a file of `size` bytes."""
    data = json.dumps({"datasetId": dataset_id})
    yield b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n' + data.encode() + b"\r\n"
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    for _ in range(size // MIB):
        yield b"x" * MIB
    yield b"\r\n--x--\r\n"


@pytest.mark.parametrize("is_chunked", [True, False])
def test_200_mb_are_too_many(server: Server, is_chunked: bool) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    if not is_chunked:
        headers["Content-Length"] = str(sum(map(len, body_of(dataset.pk, 200 * MIB))))
    response = server.post(PATH, key, content=body_of(dataset.pk, 200 * MIB), headers=headers)
    check_refusal(response, "body_too_large")
    assert not Collection.objects.filter(dataset=dataset).exists()


@pytest.mark.parametrize("caller", ["nobody", "app key", "unknown key", "revoked key", "staff without permission"])
def test_who_may_not_is_told_before_the_body(server: Server, caller: str) -> None:
    """The body never comes, and the answer does."""
    headers = {"nobody": "", "unknown key": f"Authorization: Bearer fastgpt-{'a' * 52}\r\n"}
    if caller == "app key":
        headers[caller] = (
            f"Authorization: Bearer {factories.make_key(app=factories.make_app(factories.make_team()))[1]}\r\n"
        )
    elif caller == "revoked key":
        api_key, key = factories.make_key()
        api_key.revoke(by="test", reason="test")
        headers[caller] = f"Authorization: Bearer {key}\r\n"
    elif caller == "staff without permission":
        cookies = session_of(factories.make_user(factories.make_team()))
        headers[caller] = f"Cookie: sessionid={cookies['sessionid']}; csrftoken={cookies['csrftoken']}\r\n"
        headers[caller] += f"X-CSRFToken: {cookies['csrftoken']}\r\n"
    wanted = {
        "nobody": "missing_api_key",
        "app key": "wrong_key_kind",
        "unknown key": "invalid_api_key",
        "revoked key": "revoked_api_key",
        "staff without permission": "permission_denied",
    }
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        connection.sendall(f"{head}Content-Length: 90000000\r\n{headers[caller]}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            answer += connection.recv(65536)
    check_body(json.loads(answer.partition(b"\r\n\r\n")[2]), wanted[caller])


def nameless_files(server: Server) -> int:
    """Count the nameless files, which are all that uploads are kept in. One may be closed meanwhile."""
    count = 0
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            count += "(deleted)" in os.readlink(descriptor)
    return count


def begin_upload(server: Server, key: str, size: int) -> socket.socket:
    """Begin a call whose body does not come to its end."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    head += f"Content-Length: 90000000\r\nAuthorization: Bearer {key}\r\n\r\n"
    connection.sendall(head.encode() + b"x" * size)
    return connection


def test_a_client_that_leaves_in_the_middle(server: Server) -> None:
    _, key = factories.make_key()
    before = nameless_files(server)
    with begin_upload(server, key, MIB):
        wait_for(lambda: nameless_files(server) > before, "the file is there")
    wait_for(lambda: nameless_files(server) == before, "no file stays open")


def test_a_client_that_sends_a_byte_now_and_then(server: Server) -> None:
    _, key = factories.make_key()
    with begin_upload(server, key, 1) as connection:
        connection.settimeout(0.2)
        answer = b""
        for _ in range(60):
            try:
                answer = connection.recv(65536)
                break
            except TimeoutError:
                connection.sendall(b"x")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_three_files_of_one_team_at_once(server: Server) -> None:
    dataset, foreign = factories.make_dataset(), factories.make_dataset()
    keys = [factories.make_key(dataset.team)[1] for _ in range(3)]
    before = nameless_files(server)
    with begin_upload(server, keys[0], MIB), begin_upload(server, keys[1], MIB):
        wait_for(lambda: nameless_files(server) == before + 2, "two are under way")
        check_refusal(upload(server, keys[2], "a.txt", b"x", datasetId=dataset.pk), "service_unavailable")
        made_by(upload(server, factories.make_key(foreign.team)[1], "a.txt", b"x", datasetId=foreign.pk))
    wait_for(lambda: nameless_files(server) == before, "both are gone")
    made_by(upload(server, keys[2], "a.txt", b"x", datasetId=dataset.pk))


def test_more_files_than_a_process_takes(server: Server) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    before = nameless_files(server)
    with ExitStack() as connections:
        for _ in range(8):
            _, other_key = factories.make_key()
            for _ in range(2):
                connections.enter_context(begin_upload(server, other_key, MIB))
        wait_for(lambda: nameless_files(server) == before + 16, "all are under way")
        check_refusal(upload(server, key, "a.txt", b"x", datasetId=dataset.pk), "service_unavailable")
    wait_for(lambda: nameless_files(server) == before, "all are gone")
    made_by(upload(server, key, "a.txt", b"x", datasetId=dataset.pk))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.exe", b"MZ", "must end in one of"),
        ("a", b"x", "must end in one of"),
        ("a.txt", b"", "empty"),
        ("a.pdf", b"no pdf", "no pdf"),
        ("a.txt", b"%PDF-1.7", "no txt"),
        ("a.txt", b"PK\x03\x04", "no txt"),
        ("a.docx", b"\xd0\xcf\x11\xe0", "no docx"),
        ("a.csv", b"a\0b", "no csv"),
        ("a.md\0.exe", b"x", "must end in one of"),
    ],
)
def test_files_that_are_not_what_they_say(server: Server, name: str, content: bytes, told: str) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    response = upload(server, key, name, content, datasetId=dataset.pk)
    assert told in check_refusal(response, "invalid_parameter", param="file")
    assert not Collection.objects.filter(dataset=dataset).exists()


def test_bodies_that_are_no_form(server: Server) -> None:
    dataset = factories.make_dataset()
    _, key = factories.make_key(dataset.team)
    data = json.dumps({"datasetId": dataset.pk})
    check_refusal(server.post(PATH, key, json={}), "invalid_parameter", param="file")
    check_refusal(server.post(PATH, key), "invalid_parameter", param="file")
    check_refusal(server.post(PATH, key, files={"file": ("a.txt", b"x")}), "invalid_parameter", param="data")
    response = server.post(PATH, key, files={"other": ("a.txt", b"x")}, data={"data": data})
    check_refusal(response, "invalid_parameter", param="file")
    response = server.post(PATH, key, files={"file": ("a.txt", b"x")}, data={"data": "{"})
    check_refusal(response, "invalid_parameter", param="data")
    response = server.post(PATH, key, files={"file": ("a.txt", b"x")}, data={"data": "{}"})
    check_refusal(response, "invalid_parameter", param="datasetId")
    response = server.post(PATH, key, content=b"--x", headers={"Content-Type": "multipart/form-data"})
    check_refusal(response, "invalid_parameter")
    response = server.post(PATH, key, files={"file": ("a.txt", b"x")}, data={"data": "x" * 3 * MIB})
    check_refusal(response, "body_too_large")
    response = server.post(PATH, key, files={"file": ("a.txt", b"x")}, data={f"x{n}": "" for n in range(2_000)})
    check_refusal(response, "invalid_parameter")


def test_foreign_datasets(server: Server) -> None:
    _, key = factories.make_key()
    check_refusal(upload(server, key, "a.txt", b"x", datasetId=factories.make_dataset().pk), "unAuthDataset")


def test_other_methods(server: Server) -> None:
    _, key = factories.make_key()
    check_refusal(server.get(PATH, key), "method_not_allowed")
    check_refusal(server.request("PUT", PATH, key), "method_not_allowed")
