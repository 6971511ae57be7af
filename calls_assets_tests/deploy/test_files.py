"""The files in deploy/: linted, checked against schemas, and in agreement with the rest of the project."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text())
VALUES: dict[str, Any] = yaml.safe_load((DEPLOY / "helm/values.yaml").read_text())
INSTANCE: dict[str, Any] = yaml.safe_load((ROOT / "dagster.yaml").read_text())
SETTINGS = set(re.findall(r"CALLS_[A-Z_]+[A-Z]", (ROOT / "calls_assets/settings.py").read_text()))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
OURS = {name: service for name, service in COMPOSE["services"].items() if name != "postgres"}
CODE: dict[str, Any] = VALUES["dagster-user-deployments"]["deployments"][0]
RUN: dict[str, Any] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
PODS: dict[str, dict[str, Any]] = {
    "web server": VALUES["dagsterWebserver"],
    "daemon": VALUES["dagsterDaemon"],
    "code": CODE,
    # A run's pod gets image, variables, volumes and resources from the code server, and no security context.
    "run": {
        "image": CODE["image"],
        "volumes": CODE["volumes"],
        "volumeMounts": CODE["volumeMounts"],
        "resources": CODE["resources"],
        "podSecurityContext": RUN["podSpecConfig"]["securityContext"],
        "securityContext": RUN["containerConfig"]["securityContext"],
    },
}
"""What the chart makes of the values, by its templates and Dagster's `K8sContainerContext`."""


def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command with nothing but the variables given."""
    return subprocess.run(
        arguments, env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_dockerfile_is_clean() -> None:
    """No remark of hadolint's."""
    linted = run(BIN / "hadolint", DEPLOY / "Dockerfile")
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_image_runs_as_nobody_special_and_installs_by_hash() -> None:
    """A numeric user, so that Kubernetes can prove it is not root; what is copied exists and is let in."""
    final = DOCKERFILE.split("\nFROM ")[-1]
    assert re.findall(r"^USER (.*)", final, re.MULTILINE) == ["10001:10001"]
    assert "--require-hashes" in DOCKERFILE
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    for sources in re.findall(r"^COPY (?:--chmod=\d+ )?((?:[\w./]+ )+)\S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source


def test_compose_and_values_fit_their_schemas() -> None:
    """Compose's own schema, and ours of the values that Dagster's chart takes."""
    check = BIN / "check-jsonschema"
    composed = run(check, "--builtin-schema", "vendor.compose-spec", DEPLOY / "docker-compose.yaml")
    assert composed.returncode == 0, composed.stdout
    schema = Path(__file__).parent / "dagster-chart.schema.json"
    charted = run(check, "--schemafile", schema, DEPLOY / "helm/values.yaml")
    assert charted.returncode == 0, charted.stdout


def test_every_port_is_bound_to_the_loopback_interface() -> None:
    """What has no login is for the proxy on the same host only."""
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in COMPOSE["services"]["postgres"]
    assert VALUES["dagsterWebserver"]["service"]["type"] == "ClusterIP"


@pytest.mark.parametrize("name", OURS)
def test_our_containers_may_little(name: str) -> None:
    """Not root, a read-only root file system, no capabilities, a health check (the code server has the image's)."""
    service = OURS[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "healthcheck" in service or (name == "code" and "HEALTHCHECK" in DOCKERFILE)
    # Health checks do not pass through the image's entry point, and the daemon's needs a secret.
    test = service.get("healthcheck", {}).get("test", [])
    assert "dagster-daemon" not in test or test[1] == "entrypoint"


@pytest.mark.parametrize("name", PODS)
def test_pods_may_little(name: str) -> None:
    """As the containers of Compose; what they write has a place, and a secret that is mounted can be read by them."""
    pod = PODS[name]
    assert pod["image"] == VALUES["dagsterWebserver"]["image"]
    user, group = map(int, re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[-1])
    rights = pod["podSecurityContext"]
    assert rights["runAsNonRoot"] is True
    assert (rights["runAsUser"], rights["runAsGroup"], rights["fsGroup"]) == (user, group, group)
    assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["volumeMounts"]}
    for path in ("/tmp", VALUES["global"]["dagsterHome"]):
        assert mounted[path]["emptyDir"] == {}, path
    for volume in volumes.values():
        if "secret" in volume:  # its files are root's, and the group is fsGroup's
            assert volume["secret"]["defaultMode"] == 0o440
    assert pod["resources"]["limits"]["memory"]


def test_pods_find_what_the_image_has() -> None:
    """DAGSTER_HOME is the image's; the token is where the variable says; a port that nobody needs rights for."""
    assert f"DAGSTER_HOME={VALUES['global']['dagsterHome']} " in DOCKERFILE
    variables = {variable["name"]: variable["value"] for variable in CODE["env"]}
    tokens = next(mount for mount in CODE["volumeMounts"] if mount["name"] == "token")
    assert tokens["readOnly"] is True
    assert variables["CALLS_API_TOKEN_FILE"] == f"{tokens['mountPath']}/api_token"
    web = VALUES["dagsterWebserver"]
    assert web["service"]["port"] == web["readinessProbe"]["httpGet"]["port"] > 1_024


def test_runs_get_everything_from_the_code_server() -> None:
    """What the launcher said of these would be overruled without a word, or stand there twice."""
    assert CODE["includeConfigInLaunchedRuns"] == {"enabled": True}
    launcher = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    assert not any(launcher[name] for name in ("envConfigMaps", "envSecrets", "envVars", "volumeMounts", "volumes"))
    assert "resources" not in launcher
    assert RUN["containerConfig"].keys() == {"securityContext"}


def test_no_secret_is_a_variable() -> None:
    """Secrets are files; every secret that a container uses is declared, and every variable is one that is read."""
    secrets = {"CALLS_API_TOKEN", "CALLS_WEBHOOK_SECRET", "CALLS_WEBHOOK_SIGNING_KEY", "CALLS_ALERT_URL"}
    from_files = set(re.search(r"for name in (.*); do", (DEPLOY / "entrypoint.sh").read_text())[1].split())  # type: ignore[index] # fails the test
    for service in COMPOSE["services"].values():
        environment = service["environment"]
        assert not environment.keys() & {*secrets, "DAGSTER_POSTGRES_PASSWORD", "POSTGRES_PASSWORD"}
        assert set(service["secrets"]) <= COMPOSE["secrets"].keys()
        for name, value in environment.items():
            if name.endswith("_FILE") and value.startswith("/run/secrets/"):
                assert value.removeprefix("/run/secrets/") in service["secrets"]
            if name.startswith("CALLS_"):
                assert name in SETTINGS or name.removesuffix("_FILE") in from_files & SETTINGS, name
    for variable in CODE["env"]:
        assert variable["name"] in SETTINGS - secrets
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".env", "deploy/secrets/"} <= set(ignored)


def test_the_entry_point_reads_secrets_from_files(tmp_path: Path) -> None:
    """The value of the file without its line end; a file that is missing ends it; nothing else is changed."""
    script = DEPLOY / "entrypoint.sh"
    (tmp_path / "secret").write_text("pass'word $(id) `id`\n")
    shown = run("sh", script, "env", DAGSTER_POSTGRES_PASSWORD_FILE=str(tmp_path / "secret"), CALLS_ALERT_URL="kept")
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert "DAGSTER_POSTGRES_PASSWORD=pass'word $(id) `id`" in lines
    assert "CALLS_ALERT_URL=kept" in lines
    missing = run("sh", script, "echo", "started", CALLS_ALERT_URL_FILE=str(tmp_path / "none"))
    assert missing.returncode != 0
    assert (missing.stdout, str(tmp_path / "none") in missing.stderr) == ("", True)
    assert run("sh", script, "sh", "-c", "exit 7").returncode == 7


def test_the_code_location_has_one_name() -> None:
    """In containers as outside of them: run history is kept by that name."""
    (outside,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    (inside,) = yaml.safe_load((DEPLOY / "workspace.yaml").read_text())["load_from"]
    assert inside["grpc_server"]["location_name"] == outside["python_module"]["location_name"]
    assert inside["grpc_server"]["host"] in COMPOSE["services"]
    module = outside["python_module"]["module_name"]
    assert len(VALUES["dagster-user-deployments"]["deployments"]) == 1
    assert module in CODE["dagsterApiGrpcArgs"]
    assert f'"{module}"' in DOCKERFILE
    for text in (DOCKERFILE, (DEPLOY / "workspace.yaml").read_text()):
        assert "4000" in text


def test_the_chart_gets_the_instance_settings() -> None:
    """Pool, queue, retries, monitoring and retention of ticks are those of dagster.yaml."""
    limits, pools = VALUES["concurrency"]["runs"], VALUES["concurrency"]["pools"]
    assert limits["maxConcurrentRuns"] == INSTANCE["concurrency"]["runs"]["max_concurrent_runs"]
    assert pools["defaultLimit"] == INSTANCE["concurrency"]["pools"]["default_limit"] == 1
    assert pools["granularity"] == INSTANCE["concurrency"]["pools"]["granularity"] == "run"
    assert VALUES["additionalInstanceConfig"]["run_retries"] == INSTANCE["run_retries"]
    monitoring = VALUES["dagsterDaemon"]["runMonitoring"]
    assert monitoring["startTimeoutSeconds"] == INSTANCE["run_monitoring"]["start_timeout_seconds"]
    assert monitoring["freeSlotsAfterRunEndSeconds"] == INSTANCE["run_monitoring"]["free_slots_after_run_end_seconds"]
    for kind in ("sensor", "schedule"):
        assert VALUES["retention"][kind]["purgeAfterDays"] == INSTANCE["retention"][kind]["purge_after_days"]


def test_every_file_says_whether_it_was_run() -> None:
    """Nobody is to take for tried what was only written."""
    for name in ("Dockerfile", "docker-compose.yaml", "helm/values.yaml"):
        assert "Not run here" in "\n".join((DEPLOY / name).read_text().splitlines()[:6]), name
