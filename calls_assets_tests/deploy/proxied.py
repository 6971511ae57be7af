"""Real nginx with deploy/nginx/dagster.conf in front of real Dagster web servers, all on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import httpx

CONFIG = Path(__file__).parent.parent.parent / "deploy/nginx/dagster.conf"
NAME = "dagster.example.com"
ORIGIN = f"https://{NAME}"
PASSWORDS = {"operator": "correct horse", "viewer": "battery staple"}

_MAIN = """daemon off; pid {root}/nginx.pid; error_log {root}/error.log; worker_processes 1; {user}
events {{}}
http {{ access_log {root}/access.log;
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
  include {root}/dagster.conf; }}
"""


@dataclass(frozen=True)
class Proxied:
    """Where things are.

    Attributes:
        port: The proxy's port.
        operator_url: The web server behind it that can start runs, without the proxy.
        context: Trusts the proxy's certificate.
    """

    port: int
    operator_url: str
    context: ssl.SSLContext

    def client(self, user: str | None = "operator", host: str = NAME) -> httpx.Client:
        """Gives a client with a user's login."""
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"Host": host},
            auth=(user, PASSWORDS[user]) if user else None,
            verify=self.context,
            trust_env=False,
            timeout=60,
        )


def free_port() -> int:
    """Finds a port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def write_config(root: Path, ports: dict[str, int]) -> None:
    """Writes the committed file with the ports and paths of a test; everything else as it stands."""
    text = CONFIG.read_text()
    for old, new in (
        ("127.0.0.1:3000;", f"127.0.0.1:{ports['operator']};"),
        ("127.0.0.1:3001;", f"127.0.0.1:{ports['viewer']};"),
        ("listen 443 ssl", f"listen 127.0.0.1:{ports['proxy']} ssl"),
        ("/etc/nginx/tls/", f"{root}/"),
        ("auth_basic_user_file /etc/nginx/", f"auth_basic_user_file {root}/"),
    ):
        assert old in text, f"deploy/nginx/dagster.conf has no {old}"
        text = text.replace(old, new)
    (root / "dagster.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""  # the files of a test belong to whoever runs it
    (root / "nginx.conf").write_text(_MAIN.format(root=root, user=user))


def make_secrets(root: Path) -> None:
    """Makes a certificate and the users' file, as the comments in the configuration say."""
    options = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout dagster.key -out dagster.crt"
    )
    names = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    subprocess.run(["openssl", *options.split(), *names], cwd=root, check=True, capture_output=True)
    lines = []
    for user, password in PASSWORDS.items():
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=password, check=True, capture_output=True, text=True
        )
        lines.append(f"{user}:{hashed.stdout.strip()}\n")
    (root / "dagster.users").write_text("".join(lines))


@contextlib.contextmanager
def proxied(root: Path) -> Iterator[Proxied]:
    """Runs the proxy, a web server and a read-only one, both without code; ends them."""
    ports = {name: free_port() for name in ("operator", "viewer", "proxy")}
    make_secrets(root)
    write_config(root, ports)
    home = root / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with dg.DagsterInstance.from_config(str(home)):
        pass  # makes the databases: two web servers cannot make those of one home at once
    web = [sys.executable, "-m", "dagster_webserver", "--empty-workspace", "--port"]
    commands = [
        [*web, str(ports["operator"])],
        [*web, str(ports["viewer"]), "--read-only"],
        ["nginx", "-p", str(root), "-c", str(root / "nginx.conf")],
    ]
    with contextlib.ExitStack() as stack:
        for number, command in enumerate(commands):
            log = stack.enter_context((root / f"{number}.log").open("wb"))
            process = subprocess.Popen(
                command,
                cwd=root,
                env={**os.environ, "DAGSTER_HOME": str(home)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            stack.callback(_end, process)
        found = Proxied(
            ports["proxy"],
            f"http://127.0.0.1:{ports['operator']}",
            ssl.create_default_context(cafile=str(root / "dagster.crt")),
        )
        _wait_for(found, root)
        yield found


def _wait_for(found: Proxied, root: Path) -> None:
    until = time.monotonic() + 150
    waiting = set(PASSWORDS)
    while time.monotonic() < until:
        for user in sorted(waiting):
            with contextlib.suppress(httpx.TransportError), found.client(user) as client:
                if client.get("/server_info").status_code == 200:
                    waiting.discard(user)
        if not waiting:
            return
        time.sleep(0.2)
    raise AssertionError("\n".join(f"{path}: {path.read_text()[-2000:]}" for path in root.glob("*.log")))


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
