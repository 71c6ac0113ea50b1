"""What `pip install .` brings to a trainer: the client alone, light, typed, quick to import, and at work at once."""

import json
import re
import subprocess
import sys
import time
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.app.world import build
from tests.service import ADMIN_KEY, serve

ROOT = Path(__file__).resolve().parents[2]
NAMED = {"httpx2", "pydantic", "rich", "typer"}
HEAVY = {"torch", "fastapi", "starlette", "uvicorn", "sqlalchemy", "psycopg", "aiosqlite", "alembic", "numpy", "polars"}
LIMIT_S, IMPORT_LIMIT_S = 60.0, 0.3
FIRST_BATCH = """
import sys
from paced import Client, wire
with Client(sys.argv[1], sys.argv[2]) as client:
    curriculum = next(client.curricula())
    batch = client.draw_batch(curriculum.curriculum_id, 8, include="ids")
    print(client.with_texts(batch).size)
"""
LOADED = """
import json, sys
import paced.client
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
TIMED = "import time; started = time.process_time(); {}; print(time.process_time() - started)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_the_client_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        meta = next(name for name in names if name.endswith("METADATA"))
        requires = Parser().parsestr(file.read(meta).decode()).get_all("Requires-Dist") or []
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"paced"}
    assert {"paced/py.typed", "paced/client.py", "paced/integrations/pytorch.py"} <= set(names)
    always = {re.split(r"[^\w-]", line)[0] for line in requires if "extra ==" not in line}
    assert always == NAMED
    assert wheel.stat().st_size < 300_000


def seconds_to(statement: str, *python: str) -> float:
    """The shortest of several imports, each in a process of its own, of its own work: others may be busy meanwhile."""
    found = [
        subprocess.run([*python, "-c", TIMED.format(statement)], capture_output=True, text=True, check=True, cwd=ROOT)
        for _ in range(5)
    ]
    return min(float(done.stdout) for done in found)


def test_importing_it_is_quick_and_loads_nothing_heavy() -> None:
    assert seconds_to("import paced", sys.executable) < IMPORT_LIMIT_S
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not set(json.loads(done.stdout)) & (HEAVY | {"typer", "rich", "app", "worker"})


@pytest.mark.slow
def test_a_clean_environment_draws_its_first_batch_within_a_minute(wheel: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "data", None) as service:
        with service.client() as client:
            build(client, tmp_path, 40)
        started = time.monotonic()
        venv.create(tmp_path / "clean", with_pip=True)
        python = tmp_path / "clean" / "bin" / "python"
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
        command = [str(python), "-I", "-c", FIRST_BATCH, service.url, ADMIN_KEY]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        duration_s = time.monotonic() - started
    assert done.stdout.split() == ["8"]
    assert duration_s < LIMIT_S
    listed = subprocess.run([str(python), "-m", "pip", "list", "--format", "json"], capture_output=True, check=True)
    packages = {item["name"].lower(): item["version"] for item in json.loads(listed.stdout)}
    assert not packages.keys() & HEAVY
    imported_s = {name: seconds_to(name, str(python), "-I") for name in ("import paced", "from paced import Client")}
    assert imported_s["from paced import Client"] < IMPORT_LIMIT_S
    print(f"\nfirst batch after {duration_s:.1f} s; {imported_s}; {len(packages)} packages: {packages}")
    helped = subprocess.run([str(python.with_name("paced")), "--help"], capture_output=True, text=True, check=True)
    assert "export" in helped.stdout
