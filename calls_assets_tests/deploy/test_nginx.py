"""The proxy in front of Dagster: who may come in, who may change something, and what another site's page cannot do."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from calls_assets_tests.deploy.proxied import NAME, ORIGIN, PASSWORDS, Proxied, proxied

MUTATION = "mutation { setNuxSeen }"
REFUSED_WITHOUT_RIGHTS = 'mutation { terminateRun(runId: "none") { __typename } }'
ELSEWHERE = "https://evil.example.org"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """Gives the running site."""
    with proxied(tmp_path_factory.mktemp("proxied")) as running:
        yield running


def ask(site: Proxied, query: str, user: str | None = "operator", **headers: str) -> httpx.Response:
    """Asks GraphQL as the UI does."""
    with site.client(user) as client:
        return client.post("/graphql", json={"query": query}, headers={"Origin": ORIGIN, **headers})


def test_nobody_comes_in_without_a_login(site: Proxied) -> None:
    """Neither to pages nor to GraphQL, nor with a wrong password."""
    assert ask(site, "{ version }", user=None).status_code == 401
    with site.client(None) as client:
        for path in ("/", "/server_info", "/logs/x", "/download_debug/x"):
            assert client.get(path).status_code == 401, path
        assert client.get("/", auth=("operator", PASSWORDS["viewer"])).status_code == 401


def test_the_user_interface_works(site: Proxied) -> None:
    """Page, script, query and mutation of an operator; nobody can put the page into a frame."""
    with site.client() as client:
        page = client.get("/")
        assert page.status_code == 200
        assert "frame-ancestors 'none'" in page.headers.get_list("content-security-policy")
        assert page.headers["x-frame-options"] == "DENY"
        script = page.text.split('src="')[1].split('"')[0]
        asset = client.get(script)
        assert asset.status_code == 200
        assert "javascript" in asset.headers["content-type"]
        assert len(asset.content) > 1_000
    assert ask(site, "{ version }").json()["data"]["version"]
    assert ask(site, MUTATION).json()["data"]
    # A script has no Origin.
    with site.client() as client:
        assert client.post("/graphql", json={"query": "{ version }"}).status_code == 200


def test_viewers_cannot_change_anything(site: Proxied) -> None:
    """They are sent to the read-only web server."""
    assert ask(site, "{ version }", user="viewer").json()["data"]["version"]
    assert ask(site, REFUSED_WITHOUT_RIGHTS).json()["data"]["terminateRun"]["__typename"] == "RunNotFoundError"
    refused = ask(site, REFUSED_WITHOUT_RIGHTS, user="viewer").json()["data"]["terminateRun"]["__typename"]
    assert refused == "UnauthorizedError"


def test_a_mutation_by_get_is_refused(site: Proxied) -> None:
    """Dagster would run it, from an image of any page: with Accept of an image, and of anything."""
    path = f"/graphql?query={quote(MUTATION)}"
    direct = httpx.get(f"{site.operator_url}{path}", trust_env=False, timeout=60)
    assert direct.json()["data"], "Dagster has changed: is the rule still needed?"
    with site.client() as client:
        for accept in ("image/*", "*/*", "text/html"):
            assert client.get(path, headers={"Accept": accept}).status_code == 403


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "text/plain", "text/plain; application/json", "multipart/form-data", None],
)
def test_what_a_form_can_send_is_refused(site: Proxied, content_type: str | None) -> None:
    """Dagster takes a query in the address of a POST with any content type."""
    headers = {"Content-Type": content_type} if content_type else {}
    with site.client() as client:
        path = f"/graphql?query={quote(MUTATION)}"
        assert client.post(path, headers=headers).status_code == 403
        assert client.post(path, headers=headers, content=b"{}").status_code == 403


def test_another_site_is_refused(site: Proxied) -> None:
    """With a foreign origin, a sandboxed one (null), one that only looks like ours; also for reading."""
    for origin in (ELSEWHERE, "null", f"{ORIGIN}.evil.example.org", f"http://{NAME}", ORIGIN.upper() + "."):
        assert ask(site, "{ version }", Origin=origin).status_code == 403, origin
    with site.client() as client:
        assert client.get("/", headers={"Origin": ELSEWHERE}).status_code == 403
        assert client.options("/graphql", headers={"Origin": ELSEWHERE}).status_code == 403
        assert client.options("/graphql", headers={"Origin": ORIGIN}).status_code == 403


def test_only_graphql_takes_posts(site: Proxied) -> None:
    """Dagster has paths by which anybody records events of assets."""
    with site.client() as client:
        for path in ("/report_asset_materialization/calls?partition=2025-06-02", "/report_asset_check/calls", "/"):
            for method in ("POST", "PUT", "DELETE"):
                assert client.request(method, path, headers={"Origin": ORIGIN}).status_code == 403, path
        assert client.post("/graphql/", json={"query": MUTATION}).status_code == 403
        assert client.post("//graphql", json={"query": MUTATION}, headers={"Origin": ELSEWHERE}).status_code == 403


def test_another_name_gets_no_answer(site: Proxied) -> None:
    """A name of somebody else's that leads to this address."""
    with site.client(host="evil.example.org") as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/")


def shake_hands(site: Proxied, **headers: str) -> str:
    """Opens the WebSocket of the UI; gives the first answer, or the status of a refusal."""
    login = b64encode(f"operator:{PASSWORDS['operator']}".encode()).decode()
    try:
        with connect(
            f"wss://{NAME}/graphql",
            address=("127.0.0.1", site.port),
            ssl=site.context,
            subprotocols=[Subprotocol("graphql-ws")],
            additional_headers={"Authorization": f"Basic {login}", **headers},
            proxy=None,
        ) as socket:
            socket.send(json.dumps({"type": "connection_init", "payload": {}}))
            answer: str = json.loads(socket.recv(timeout=30))["type"]
            return answer
    except InvalidStatus as refused:
        return str(refused.response.status_code)


def test_the_websocket_is_for_our_own_pages(site: Proxied) -> None:
    """Browsers let any page open one, and send the login with it."""
    assert shake_hands(site, Origin=ORIGIN) == "connection_ack"
    assert shake_hands(site, Origin=ELSEWHERE) == "403"
    assert shake_hands(site) == "403"
