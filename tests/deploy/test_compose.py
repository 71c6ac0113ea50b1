"""docker-compose.yml and Dockerfile against the settings, the command line and the files that they name."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.main import create_app
from app.settings import Settings
from paced import __version__
from paced.doctor import BREAKING
from tests.commands import check_command
from tests.service import ADMIN_KEY, Service, serve

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = {"POSTGRES_PASSWORD": "pw", "PACED_ADMIN_KEY": ADMIN_KEY, "PACED_SECRET": "pepper"}
CLIENT_VARIABLES = {"PACED_URL", "PACED_KEY", "PACED_DATA"}
SERVICE_VARIABLES = {f"PACED_{name.upper()}" for name in Settings.model_fields}
PORT = Settings.model_fields["port"].default
SERVICES = ("postgres", "migrate", "api", "worker", "trainer")
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])((?:[^{}]|\{[^{}]*\})*))?\}")


def interpolated(text: str, environment: dict[str, str]) -> str:
    """What Docker Compose makes of `${NAME}`, `${NAME:-default}` and `${NAME:?message}`."""

    def value(match: re.Match[str]) -> str:
        name, sign, rest = match.groups()
        if environment.get(name):
            return environment[name]
        if sign == "?":
            raise KeyError(name)
        return interpolated(rest, environment) if sign == "-" else ""

    return VARIABLE.sub(value, text)


TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(interpolated(TEXT, REQUIRED))


def instructions() -> Iterator[tuple[str, str, str]]:
    """(stage, instruction, arguments) of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text()
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    stage = ""
    for line in filter(None, joined.splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stage = rest.rpartition(" AS ")[2]
        yield stage, name, rest


DOCKERFILE = list(instructions())
STAGES = {stage for stage, _, _ in DOCKERFILE}


def of_stage(stage: str, name: str) -> list[str]:
    return [rest for where, what, rest in DOCKERFILE if (where, what) == (stage, name)]


def test_the_services_are_those_of_the_flow() -> None:
    assert tuple(COMPOSE["services"]) == SERVICES
    assert [name for name, made in COMPOSE["services"].items() if "profiles" in made] == ["trainer"]


@pytest.mark.parametrize("name", REQUIRED)
def test_secrets_have_no_default(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        interpolated(TEXT, {**REQUIRED, name: ""})


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_and_volumes(name: str) -> None:
    service = COMPOSE["services"][name]
    check = service["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= check.keys()
    assert service["volumes"]
    for volume in service["volumes"]:
        assert volume.partition(":")[0] in COMPOSE["volumes"]
    assert service["restart"] in {"unless-stopped", "on-failure", "no"}


def test_services_wait_for_what_they_need() -> None:
    waits = {
        name: {on: how["condition"] for on, how in service.get("depends_on", {}).items()}
        for name, service in COMPOSE["services"].items()
    }
    assert waits == {
        "postgres": {},
        "migrate": {"postgres": "service_healthy"},
        "api": {"postgres": "service_healthy", "migrate": "service_completed_successfully"},
        "worker": {"api": "service_healthy"},
        "trainer": {"api": "service_healthy"},
    }


@pytest.mark.parametrize("name", SERVICES)
def test_variables_are_settings_or_read_by_the_client(name: str) -> None:
    given = {key for key in COMPOSE["services"][name].get("environment", {}) if key.startswith("PACED_")}
    is_client = name in {"worker", "trainer"}
    assert given <= (CLIENT_VARIABLES if is_client else SERVICE_VARIABLES)
    assert ({"PACED_URL", "PACED_KEY"} if is_client else set()) <= given
    if name in {"migrate", "api"}:
        url = Settings(database=COMPOSE["services"][name]["environment"]["PACED_DATABASE"]).database_url
        assert (url.drivername, url.host, url.database) == ("postgresql+psycopg", "postgres", "paced")


def test_variables_that_users_set_exist() -> None:
    names = {match[1] for match in VARIABLE.finditer(TEXT)} | set(re.findall(r"\$\{(\w+)\}", TEXT))
    described = set(re.findall(r"^#   ([A-Z_]+) ", TEXT, flags=re.MULTILINE))
    assert described == {name for name in names if not name.startswith("PIP_")}
    assert {name for name in names if name.startswith("PACED_")} <= SERVICE_VARIABLES
    set_in_images = {item.partition("=")[0] for _, name, rest in DOCKERFILE if name == "ENV" for item in rest.split()}
    assert {name for name in set_in_images if name.startswith("PACED_")} <= SERVICE_VARIABLES | CLIENT_VARIABLES


@pytest.mark.parametrize("name", ["migrate", "api", "worker", "trainer"])
def test_commands_are_ones_that_paced_has(name: str, tmp_path: Path) -> None:
    service = COMPOSE["services"][name]
    entry = of_stage(service["build"]["target"], "ENTRYPOINT")
    words = [*(json.loads(entry[0]) if entry else []), *service["command"]]
    assert words[0] == "paced"
    check_command(words[1:], tmp_path)


def test_default_commands_of_the_images_are_ones_that_paced_has(tmp_path: Path) -> None:
    words = json.loads(of_stage("service", "CMD")[0])
    assert words[0] == "paced"
    check_command(words[1:], tmp_path)
    assert json.loads(of_stage("worker", "ENTRYPOINT")[0]) == ["paced"]


def test_ports_agree() -> None:
    api, worker = COMPOSE["services"]["api"], COMPOSE["services"]["worker"]
    assert api["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert worker["environment"]["PACED_URL"] == f"http://api:{PORT}"
    assert of_stage("service", "EXPOSE") == [str(PORT)]
    routes = {getattr(route, "path", "") for route in create_app(Settings()).routes}
    for text in (api["healthcheck"]["test"][-1], of_stage("service", "HEALTHCHECK")[0]):
        found = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", text)
        assert found is not None
        assert (int(found[1]), found[2] in routes) == (PORT, True)


def test_images_are_pinned() -> None:
    for service in COMPOSE["services"].values():
        name, _, tag = service["image"].rpartition(":")
        assert name
        assert tag == __version__ if "build" in service else tag not in {"", "latest"}
    for _, name, rest in DOCKERFILE:
        image = rest.partition(" AS ")[0]
        assert name != "FROM" or image in STAGES or re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image)
    postgres = COMPOSE["services"]["postgres"]["image"]
    assert int(postgres.partition(":")[2].split(".")[0]) >= 15


def test_built_targets_exist_and_run_as_their_own_user() -> None:
    built = {service["build"]["target"] for service in COMPOSE["services"].values() if "build" in service}
    assert built == {"service", "worker"}
    for stage in built:
        assert of_stage(stage, "USER") == ["paced"]
        assert of_stage(stage, "HEALTHCHECK")
        arguments = {rest.partition("=")[0] for rest in of_stage(stage, "ARG")}
        for service in COMPOSE["services"].values():
            if service.get("build", {}).get("target") == stage:
                assert set(service["build"]["args"]) <= arguments


@pytest.mark.parametrize("engine", ["rollout-cpu", "rollout"])
def test_extras_are_those_of_the_project(engine: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runs = " ".join(rest for _, name, rest in DOCKERFILE if name == "RUN").replace("${ENGINE}", engine)
    asked = [extra for group in re.findall(r'--editable "\.\[([^\]]+)\]"', runs) for extra in group.split(",")]
    assert sorted(asked) == sorted(["service", engine, "train"])
    assert set(asked) <= project["optional-dependencies"].keys()
    assert of_stage("worker", "ARG")[-1] == f"ENGINE={COMPOSE['services']['worker']['build']['args']['ENGINE']}"


def test_the_cpu_image_removes_what_breaks_transformers() -> None:
    (command,) = [rest for rest in of_stage("worker", "RUN") if "uninstall" in rest]
    assert '[ "$ENGINE" = rollout-cpu ]' in command
    removed = shlex.split(command.partition("uninstall --yes ")[2].partition(";")[0])
    assert removed == list(BREAKING)


def test_what_is_copied_is_in_the_checkout_and_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for _, name, rest in DOCKERFILE if name == "COPY" for source in rest.split()[:-1]}
    assert copied == let_through
    for source in copied:
        assert (ROOT / source).exists()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Service]:
    with serve(tmp_path / "data", None) as service:
        yield service


@pytest.mark.parametrize(
    ("name", "key", "is_well"), [("api", "", True), ("worker", ADMIN_KEY, True), ("worker", "x", False)]
)
def test_health_checks_tell_well_from_ill(running: Service, name: str, key: str, is_well: bool) -> None:
    test = COMPOSE["services"][name]["healthcheck"]["test"][1:]
    code = test[-1].replace(f"http://127.0.0.1:{PORT}", running.url)
    environment = {"PACED_URL": running.url, "PACED_KEY": key, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, *test[1:-1], code], check=False, env=environment, capture_output=True, timeout=60
    )
    assert (done.returncode == 0) is is_well, done.stderr.decode()
