"""Requests to the web viewer as sent by other sites' pages and other machines."""

import socket
import urllib.parse

import pytest

from tests.support.outside import package
from tests.support.scenes import ring_scene
from vision3d.core.errors import BackendError
from vision3d.viewer.layers import Layers
from vision3d.viewer.web import WebViewer, free_port
from vision3d.viewer.web_guard import Guard, is_loopback


@pytest.fixture
def layers(tmp_path):
    package("viser")
    ring_scene().save(tmp_path / "ring.ply")
    return Layers.open([tmp_path / "ring.ply"])


def ask(port, path="/", websocket=False, **headers):
    """The head of the response to a request with exactly these headers."""
    import viser

    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if websocket:
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {'a' * 22}=="]
        lines += [f"Sec-WebSocket-Protocol: viser-v{viser.__version__}"]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(4096)):
            answer += part
    return answer.decode("latin-1")


def status(port, path="/", websocket=False, **headers):
    return int(ask(port, path, websocket, **headers).split()[1])


def test_only_pages_of_this_machine_can_use_a_server_on_loopback(layers):
    with WebViewer(layers, port=0) as viewer:
        port = viewer.server.get_port()
        here = f"127.0.0.1:{port}"
        assert viewer.url == f"http://{here}"
        for websocket, done in ((False, 200), (True, 101)):
            for host in (here, f"localhost:{port}", f"[::1]:{port}", "localhost:9000"):  # the last through a tunnel
                assert status(port, "/", websocket, Host=host) == done
                assert status(port, "/", websocket, Host=host, Origin=f"http://{host}") == done
            # A site whose own name resolves to this machine, and pages of other sites, ports and files.
            for host, origin in (
                (f"evil.example:{port}", f"http://evil.example:{port}"),
                (f"evil.example:{port}", None),
                (here, "http://evil.example"),
                (here, "http://localhost:3000"),
                (here, f"http://127.0.0.1:{port}.evil.example"),
                (here, f"http://localhost:{port}"),
                (here, "null"),
                ("[::1", None),
            ):
                headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
                assert status(port, "/", websocket, **headers) == 403
        assert "frame-ancestors 'self'" in ask(port, Host=here)  # no other site's page can embed it in a frame
        assert status(port, "/../../secret", Host=here) == 404


def test_no_host_or_two(layers):
    with WebViewer(layers, port=0) as viewer:
        port = viewer.server.get_port()
        assert status(port) == 403
        assert status(port, Host=f"127.0.0.1:{port}\r\nHost: evil.example") == 403


def test_other_machines_need_the_token(layers):
    with WebViewer(layers, host="0.0.0.0", port=0) as viewer:
        port = viewer.server.get_port()
        path = urllib.parse.urlsplit(viewer.url).path
        assert len(path) > 20 and path.startswith("/") and path.endswith("/")
        assert viewer.url.startswith(f"http://{socket.gethostname()}:{port}/")
        host = f"machine.example:{port}"
        for websocket, done in ((False, 200), (True, 101)):
            # viser's page connects to the address it was opened at, without the part after "?" and the last "/".
            for right in (path, path[:-1], f"{path}?x=1", f"{path[:-1]}?x=1"):
                assert status(port, right, websocket, Host=host, Origin=f"http://{host}") == done
            for wrong in ("/", "/index.html", path[:-2], f"/x{path[1:]}", f"/?token={path[1:-1]}", "/é"):
                assert status(port, wrong, websocket, Host=host, Origin=f"http://{host}") == 403
            assert status(port, path, websocket, Host=host, Origin="http://evil.example") == 403
        assert status(port, f"{path}none.js", Host=host) == 404


def test_each_server_has_its_own_token():
    assert Guard("0.0.0.0").token != Guard("0.0.0.0").token
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.0.0.2")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "", "192.0.2.7", "example.org")] == [False] * 5


def test_a_viser_that_cannot_be_guarded_is_not_served(layers, monkeypatch):
    """If a later version starts its server differently, there is an error and no open server."""
    monkeypatch.setattr(Guard, "_guarded", lambda self, args, options: options)
    port = free_port("127.0.0.1", 0)
    with pytest.raises(BackendError, match=r"this version of viser cannot reject requests of other sites; want viser 1\.0"):
        WebViewer(layers, port=port)
    assert free_port("127.0.0.1", port) == port
    with pytest.raises(ConnectionRefusedError):
        ask(port, Host="127.0.0.1")


def test_servers_of_others_are_not_changed():
    package("viser")
    from websockets.asyncio import server

    original = server.serve
    options = Guard("127.0.0.1")._guarded((ask, "127.0.0.1", 8080), {"process_request": ask})
    assert options == {"process_request": ask}
    with Guard("127.0.0.1").installed():
        assert server.serve is not original
    assert server.serve is original
