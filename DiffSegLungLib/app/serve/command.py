"""The command ``serve``: checks the request, and runs the page until it is stopped."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import socket
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DiffSegLungLib.app.serve.access import HEADERS, LARGEST_MESSAGE, Access, limit_messages
from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.io.cases import Case, find_listed
from DiffSegLungLib.representation.quality import STANDARD, quality_of

PACKAGES = ("slicer", "trame", "trame_slicer", "trame_rca", "trame_vuetify", "slicer_layer_dm")
LOOPBACK_HOST = "127.0.0.1"
REPORT_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
}
SHOWN = (".html", ".pdf")
"""Opened by the browser; other files are downloads."""


@dataclass(frozen=True)
class ServeRequest:
    """One call of ``serve``.

    Attributes:
        source: a CT, or a folder of CT.
        output: folder for what is saved; None to download it only.
        keep_names: call saved files and reports as the CT's file, not by a code.
        lungs: a lung mask for the one CT; None to find the lungs.
        host: where to listen.
        port: 0 for a free one.
        quality: offered first.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        model: name or folder of the weights, None for the default.
        seed: of everything random.
        open: whether to open the page in this computer's browser.
    """

    source: Path
    output: Path | None = None
    keep_names: bool = False
    lungs: Path | None = None
    host: str = LOOPBACK_HOST
    port: int = 0
    quality: str = STANDARD
    device: str = "auto"
    model: str | None = None
    seed: int = 0
    open: bool = False

    @property
    def options(self) -> dict[str, str]:
        """For `Session`."""
        given = {"output": self.output, "lungs": self.lungs, "model": self.model}
        chosen = {"quality": self.quality, "device": self.device, "seed": str(self.seed)}
        return {**chosen, **{name: str(value) for name, value in given.items() if value}}


def serve(request: ServeRequest) -> None:
    """Runs the page until Ctrl+C or a request to end; prints its address first.

    Raises:
        UnusableInputError: no CT there, a mask for several, or a folder to which nothing can be written.
        MissingPartError: the packages of the extra ``serve``.
    """
    quality_of(request.quality)
    scans = find_listed(request.source, request.keep_names)
    if request.lungs and (len(scans) > 1 or not request.lungs.exists()):
        raise UnusableInputError("--lungs is the mask of one CT: give that CT and a mask that is there.")
    if request.output:
        _require_folder(request.output)
    require_packages()
    try:
        with tempfile.TemporaryDirectory(prefix="diffseglung-", ignore_cleanup_errors=True) as folder:
            asyncio.run(_serve(request, scans, Path(folder)))
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)


def require_packages() -> None:
    """Finds out before anything is started.

    Raises:
        MissingPartError: a package is not installed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPartError(
            f"The page in the browser needs {', '.join(missing)}: pip install 'diffseglung[serve]'."
        )


def _require_folder(folder: Path) -> None:
    from DiffSegLungLib.io.atomic import require_writable

    if folder.exists() and not folder.is_dir():
        raise UnusableInputError(f"Output {folder} is a file: give the name of a folder.")
    require_writable(folder / "segmentation.seg.nrrd")


async def _serve(request: ServeRequest, scans: dict[str, Case], folder: Path) -> None:
    os.environ["TRAME_ARGS"] = ""  # trame must not read our command line as its own
    _quiet_vtk()
    from trame.app import get_server
    from trame_slicer import module

    from DiffSegLungLib.app.serve.page import build_page
    from DiffSegLungLib.app.serve.session import Session

    server: Any = get_server(client_type="vue3", ws_max_msg_size=LARGEST_MESSAGE)
    server.enable_module(module)
    access = Access(loopback_only=request.host in (LOOPBACK_HOST, "localhost", "::1"))
    session = Session(server.state, scans, folder, request.options)
    with redirect_stdout(io.StringIO()):  # widgets of trame-slicer complain about their own attributes
        build_page(server, session)
    server.controller.on_server_bind.add(lambda web: _protect(web, access, session))
    server.controller.on_server_ready.add(lambda **_: _announce(request, server.port, access))
    if len(scans) == 1:
        server.controller.on_server_ready.add_task(lambda **_: session.open(next(iter(scans))))
    try:
        await server.start(
            host=request.host, port=request.port, timeout=0, exec_mode="coroutine", open_browser=False,
            show_connection_info=False, disable_logging=True, thread=True,
        )  # fmt: skip
    except OSError as error:
        where = f"{request.host}, port {request.port}"
        raise UnusableInputError(
            f"Cannot listen on {where}: {error.strerror}. Give another --port."
        ) from None
    finally:
        session.close()


def _quiet_vtk() -> None:
    """Draws off screen where there is no display, and leaves VTK's warnings, for developers, out."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    from vtkmodules.vtkCommonCore import vtkLogger

    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_ERROR)


def _protect(web: Any, access: Access, session: Any) -> None:
    """Puts the checks before everything that the server answers, and adds the files that were saved."""
    web.app.middlewares.append(access.middleware())
    web.app.router.add_get("/files/{name}", lambda request: _file(request, session.files))
    for handler in web._ws_handlers:
        limit_messages(handler)


async def _file(request: Any, files: dict[str, Path]) -> Any:
    """One of the files that were saved, by its name alone: no path comes from the browser."""
    from aiohttp import web

    path = files.get(request.match_info["name"])
    if path is None or not path.is_file():
        raise web.HTTPNotFound()
    if path.suffix in SHOWN:
        return web.FileResponse(path, headers=REPORT_HEADERS if path.suffix == ".html" else None)
    quoted = path.name.replace("\\", "_").replace('"', "_")
    return web.FileResponse(path, headers={"Content-Disposition": f'attachment; filename="{quoted}"'})


def _announce(request: ServeRequest, port: int, access: Access) -> None:
    """The one address that lets in; to standard output, for people and programs."""
    names = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname(), "::1": "[::1]"}  # nosec B104: shown, not bound
    shown = names.get(request.host, request.host)
    address = f"http://{shown}:{port}/?token={access.token}"
    if request.host not in (LOOPBACK_HOST, "localhost", "::1"):
        print(
            f"diffseglung: warning: listening on {request.host}: everybody in the network who learns the "
            "address, which is sent unencrypted, sees the CT.", file=sys.stderr,
        )  # fmt: skip
    print(f"DiffSegLung runs at {address}\nStop it with Ctrl+C.", flush=True)
    if request.open:
        import webbrowser

        webbrowser.open(address)
