"""Access control of the page: rejects requests for another host, from another site's page or without the token.

Browsers let any page send requests to this machine. Two checks reject them: `Origin`, which browsers set to the page's site
(cross-site WebSockets), must be the requested host, and on loopback that host must be a loopback name, so that no site can
resolve its own name to it (DNS rebinding). If other machines can reach the server, its address contains a secret token.
"""

import contextlib
import ipaddress
import secrets
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

from vision3d.core.errors import BackendError

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_FRAMES = "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*"
"""Pages that may embed ours in a frame, where clicks could be hijacked: its own site, and notebooks on this machine."""
_lock = threading.Lock()


class Guard:
    """Checks every request to one server.

    Args:
        host: Address that the server listens on.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.token = None if is_loopback(host) else secrets.token_urlsafe(16)
        self._is_used = False

    def url(self, port: int) -> str:
        """The address of the page, with the token if there is one."""
        name = socket.gethostname() if self.host in ("", "0.0.0.0", "::") else self.host
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{port}" + ("" if self.token is None else f"/{self.token}/")

    def refusal(self, request: Any) -> str | None:
        """Why a request of `websockets` is rejected, or None; removes the token from the path."""
        hosts, origins = (request.headers.get_all(name) for name in ("Host", "Origin"))
        if len(hosts) != 1 or len(origins) > 1:
            return "want one Host and at most one Origin"
        if self.token is None and _host_name(hosts[0]) not in (*_LOCAL_NAMES, self.host.lower()):
            return f"the host {hosts[0][:80]} is not this machine; open {_LOCAL_NAMES[0]}"
        if origins and urllib.parse.urlsplit(origins[0].lower()).netloc != hosts[0].lower():
            return f"pages of {origins[0][:80]} may not use this server"
        if self.token is not None:
            first, _, rest = request.path.removeprefix("/").partition("/")
            first, mark, query = first.partition("?")
            if not secrets.compare_digest(first.encode(errors="replace"), self.token.encode()):
                return "open the address that the server printed, with its token"
            request.path = f"/{rest}{mark}{query}"
        return None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Guards the servers that viser starts on `host` inside this block; `check_used` verifies that there is one."""
        from websockets.asyncio import server

        with _lock:
            original = server.serve
            server.serve = lambda *args, **options: original(*args, **self._guarded(args, options))  # pyright: ignore
            try:
                yield
            finally:
                server.serve = original

    def check_used(self) -> None:
        """Raises if no server was guarded.

        Raises:
            BackendError: This version of viser starts its server in an unknown way.
        """
        if not self._is_used:
            raise BackendError("this version of viser cannot reject requests of other sites; want viser 1.0 or 1.1")

    def _guarded(self, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `websockets.serve` with our check before viser's request handler."""
        handler, answer = args[0], options.get("process_request")
        if not handler.__module__.startswith("viser.") or answer is None or self.host not in args[1:2]:
            return options  # another server of this process
        self._is_used = True

        def process_request(connection: Any, request: Any) -> Any:
            problem = self.refusal(request)
            if problem is not None:
                return connection.respond(403, f"{problem}\n")
            response = answer(connection, request)
            if response is not None:
                response.headers["Content-Security-Policy"] = _FRAMES
            return response

        return {**options, "process_request": process_request}


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str | None:
    """The name in a Host header, without the port."""
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname
    except ValueError:
        return None
