"""Who is let in: the running server is asked as a stranger, a foreign page and the user would."""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from DiffSegLungLib.app import cli
from DiffSegLungLib.app.serve import command
from DiffSegLungLib.app.serve.access import MESSAGES_AT_ONCE, MESSAGES_PER_SECOND, Access, Allowance
from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.io.cases import find_listed, listed
from Testing.unit.dicom_series import write_series

from .conftest import PHANTOM, Server

WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of one answer."""
    where = urlsplit(server.root)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders())
    connection.close()
    return found


@pytest.fixture
def cookie(server: Server) -> str:
    """What the browser gets for the token."""
    status, headers = ask(server, f"/?token={server.token}")
    assert status == 303
    assert headers["Location"] == "/index.html"
    assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Strict" in headers["Set-Cookie"]
    return headers["Set-Cookie"].split(";")[0]


@pytest.mark.parametrize(
    "path", ["/", "/index.html", "/ws", "/files/report.html", "/?token=wrong", "/?token="]
)
def test_without_the_token_nothing_is_served(server: Server, path: str) -> None:
    headers = {**WEBSOCKET, "Origin": server.root.rstrip("/")} if path == "/ws" else {}
    assert ask(server, path, **headers)[0] == 403


def test_the_cookie_lets_in(server: Server, cookie: str) -> None:
    status, headers = ask(server, "/index.html", Cookie=cookie)
    assert status == 200
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert ask(server, "/ws", Cookie=cookie, Origin=server.root.rstrip("/"), **WEBSOCKET)[0] == 101


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null", ""])
def test_a_foreign_page_may_not_connect(server: Server, cookie: str, origin: str) -> None:
    headers = {**WEBSOCKET, **({"Origin": origin} if origin else {})}
    assert ask(server, "/ws", Cookie=cookie, **headers)[0] == 403


def test_a_name_that_leads_here_is_refused(server: Server, cookie: str) -> None:
    assert ask(server, "/index.html", Cookie=cookie, Host="evil.example")[0] == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_uploaded(server: Server, cookie: str, method: str) -> None:
    assert ask(server, "/index.html", method, Cookie=cookie)[0] == 405


@pytest.mark.parametrize(
    "path", ["/files/../etc/passwd", "/files/..%2f..%2fetc%2fpasswd", "/%2e%2e/etc/passwd"]
)
def test_no_other_file_is_served(server: Server, cookie: str, path: str) -> None:
    assert ask(server, path, Cookie=cookie)[0] in (403, 404)


def test_listens_on_loopback_alone(server: Server) -> None:
    import psutil

    listening = [
        each for each in psutil.Process(server.process.pid).net_connections() if each.status == "LISTEN"
    ]
    assert {each.laddr.ip for each in listening} == {"127.0.0.1"}


async def _with_websocket(server: Server, cookie: str, talk: Callable[[Any], Awaitable[None]]) -> None:
    """A page's websocket after its hello; ``talk`` gets it."""
    import aiohttp

    headers = {"Cookie": cookie, "Origin": server.root.rstrip("/")}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(server.root + "ws") as socket,
    ):
        await socket.send_bytes(_message("system:c0:0", "wslink.hello", {"secret": "wslink-secret"}))
        while b"clientID" not in (await socket.receive(60)).data:
            pass
        await talk(socket)


def _message(number: str, method: str, *arguments: Any) -> bytes:
    """A call as the page sends it, in one chunk."""
    import msgpack
    from wslink.chunking import generate_chunks

    call = {"wslink": "1.0", "id": number, "method": method, "args": list(arguments), "kwargs": {}}
    (chunk,) = generate_chunks(msgpack.packb(call), 0)
    return bytes(chunk)


def test_a_message_that_says_it_is_huge_ends_the_connection(server: Server, cookie: str) -> None:
    async def talk(socket: Any) -> None:
        size = (2**31).to_bytes(4, "little")
        await socket.send_bytes(bytes(8) + size + b"x")
        while (received := await socket.receive(60)).type.name in ("BINARY", "TEXT"):
            pass
        assert received.type.name in ("CLOSE", "CLOSED", "CLOSING")

    asyncio.run(_with_websocket(server, cookie, talk))


def test_a_flood_of_messages_is_slowed(server: Server, cookie: str) -> None:
    count, began = MESSAGES_AT_ONCE + 2 * MESSAGES_PER_SECOND, time.monotonic()

    async def talk(socket: Any) -> None:
        for number in range(count):
            await socket.send_bytes(_message(f"rpc:c0:{number}", "trame.state.update", []))
        while f"rpc:c0:{count - 1}".encode() not in (await socket.receive(60)).data:
            pass

    asyncio.run(_with_websocket(server, cookie, talk))
    assert time.monotonic() - began > 1.5


class Request:
    """What `Access` reads of a request."""

    def __init__(self, token: str = "", path: str = "/index.html", host: str = "localhost:1") -> None:
        self.headers = {"Host": host}
        self.cookies: dict[str, str] = {}
        self.query, self.path, self.method = {"token": token}, path, "GET"


def status_of(access: Access, request: Any) -> int:
    """The refusal's status; 200 where there is none."""
    refused = access.refusal(request)
    return refused[0] if refused else 200


def test_guessing_is_slowed_and_does_not_lock_the_user_out() -> None:
    access = Access(token="right")
    answers = [status_of(access, Request("wrong")) for _ in range(50)]
    assert answers[0] == 403 and answers[-1] == 429
    assert status_of(access, Request("right")) == 200


def test_floods_are_refused() -> None:
    access = Access(token="right")
    assert 429 in [status_of(access, Request("right")) for _ in range(2000)]


def test_each_token_is_new_and_long() -> None:
    tokens = {Access().token for _ in range(20)}
    assert len(tokens) == 20
    assert min(map(len, tokens)) >= 40


def test_elsewhere_the_name_is_free_but_the_token_is_not() -> None:
    access = Access(loopback_only=False, token="right")
    assert status_of(access, Request("right", host="ct-station:8000")) == 200
    assert status_of(access, Request("", host="ct-station:8000")) == 403


def test_allowance_refills() -> None:
    now = [0.0]
    allowance = Allowance(2, 4, clock=lambda: now[0])
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    assert allowance.wait() == pytest.approx(0.25)
    now[0] = 0.25
    assert allowance.take() and not allowance.take()


def test_only_ct_of_the_folder_are_listed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.nrrd"
    outside.touch()
    folder = tmp_path / "folder"
    (folder / "empty").mkdir(parents=True)
    for name in ("a.nii.gz", "b.nrrd", "b.seg.nrrd", "notes.txt", ".hidden.nrrd"):
        (folder / name).touch()
    (folder / "leads_out.nrrd").symlink_to(outside)
    write_series(folder / "dicom", np.full((8, 8, 8), -800.0))
    cases = find_listed(folder)
    assert list(cases) == ["a.nii.gz", "b.nrrd", "dicom"]
    for unlisted in ("../outside.nrrd", str(outside), "leads_out.nrrd", "", None, ["a.nii.gz"]):
        with pytest.raises(UnusableInputError):
            listed(cases, unlisted)
    assert listed(cases, "b.nrrd").source == (folder / "b.nrrd").resolve()
    assert find_listed(folder / "b.nrrd")["b.nrrd"].name == cases["b.nrrd"].name, (
        "opened alone or in its folder"
    )


def test_unusable_places(tmp_path: Path) -> None:
    with pytest.raises(UnusableInputError, match="no such file or folder"):
        find_listed(tmp_path / "missing")
    with pytest.raises(UnusableInputError, match="no CT"):
        find_listed(tmp_path)
    (tmp_path / "leads_out").mkdir()
    outside = tmp_path / "ct.nrrd"
    outside.touch()
    (tmp_path / "leads_out" / "ct.nrrd").symlink_to(outside)
    with pytest.raises(UnusableInputError, match="links that lead out"):
        find_listed(tmp_path / "leads_out")


def test_missing_package_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PACKAGES", ("trame_slicer_that_is_not_there",))
    with pytest.raises(MissingPartError, match=r"diffseglung\[serve\]"):
        command.require_packages()
    assert cli.main(["serve", str(PHANTOM)]) == 3
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("words", [["--port", "70000"], ["--port", "x"], ["--lungs", "missing.nrrd"]])
def test_wrong_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", str(PHANTOM), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_needs_no_package_of_the_page() -> None:
    code = "import sys\nfrom DiffSegLungLib.app.cli import main\nmain(['serve', '--help'])\n"
    code += "sys.exit(bool({'slicer', 'trame', 'vtkmodules', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
