"""The documentation is current, its links lead somewhere, and what it tells to type works."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.settings import Settings
from docs import generate
from paced import Client
from tests.commands import check_command, paced_commands
from tests.service import ADMIN_KEY, serve
from worker.distill.config import DistillConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- test: ([^\n]*?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
SHELL = ("bash", "sh")
REASONS = {None, "needs a model", "starts the service", "installs", "takes long"}
OWN_PROBLEMS = ROOT / "demo" / "own_problems.jsonl"


@dataclass(frozen=True)
class Block:
    """A fenced block; `reason` is why a test does not run it, if there is one."""

    reason: str | None
    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in BLOCK.finditer(text):
        yield Block(match[1], match[2], match[3], text[: match.start(2)].count("\n") + 1)


def test_generated_pages_are_current() -> None:
    assert generate.stale() == {}, "the code has changed: run `python docs/generate.py`"


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        assert field.description
        assert f"`PACED_{name.upper()}`" in page


def test_every_setting_of_a_training_run_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for name in DistillConfig.model_fields:
        assert f"| `{name}` |" in page


def test_every_operation_and_body_is_documented_with_an_example() -> None:
    page = generate.pages()["api.md"]
    assert "null\n```" not in page
    operations = re.findall(r"^### (?:GET|POST|PUT|PATCH|DELETE) .*?(?=^##)", page, re.MULTILINE | re.DOTALL)
    assert len(operations) > 40
    for operation in operations:
        assert "needs no key" in operation or re.search(r"needs a key with scope `\w+`", operation)
        for body in re.findall(r"^Body.*?\n\n(.*?)\n", operation, re.MULTILINE):
            assert body.startswith("```")


def test_every_method_of_the_client_is_documented() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    methods = {name for name, _ in inspect.getmembers(Client, callable) if not name.startswith("_")}
    told = set(re.findall(r"^(?:client|Client)\.(\w+)\(", page, re.MULTILINE))
    assert methods == told
    assert {"Stream", "BatchStream", "distillation_loss", "CurriculumTaskset", "in_process"} <= anchors_of_code(page)


def anchors_of_code(page: str) -> set[str]:
    return set(re.findall(r"^### (\w+)$", page, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tree_in_the_readme_is_the_tree() -> None:
    (tree,) = [block.text for block in blocks(ROOT / "README.md") if block.text.startswith("paced/ ")]
    shown: set[Path] = set()
    parents = {-2: ROOT}
    for line in tree.splitlines():
        names = re.match(r" *(?:[\w./]+ )+", line)
        assert names is not None
        depth = len(line) - len(line.lstrip())
        for name in names[0].split():
            parents[depth] = parents[depth - 2] / name
            shown.add(parents[depth])
            assert parents[depth].exists(), f"the README shows {name}"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {line.partition("/")[0] for line in tracked.splitlines() if "/" in line and not line.startswith(".")}
    assert {ROOT / name for name in folders} <= shown
    for part in ("app", "worker"):
        assert {path for path in (ROOT / part).iterdir() if path.is_dir() and path.name != "__pycache__"} <= shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paced_commands_are_ones_that_paced_has(page: Path, tmp_path: Path) -> None:
    found = [words for block in blocks(page) if block.language in SHELL for words in paced_commands(block.text)]
    if page.name in {"README.md", "quickstart.md", "operations.md"}:
        assert len(found) >= 3
    for words in found:
        check_command(words, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_routes_that_are_named_are_ones_that_the_service_has(page: Path) -> None:
    has = re.findall(r"^### ([A-Z]+ /\S+)", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    named = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /v1/[^`?\s]*)", page.read_text()))
    without_names = {re.sub(r"\{\w+\}", "{}", route) for route in has}
    assert {re.sub(r"\{\w+\}", "{}", route) for route in named} <= without_names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_what_is_told_to_type_works(name: str, tmp_path: Path) -> None:
    typed(name, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq: apt-get install jq")
def test_the_loop_by_curl_and_jq_goes_round(tmp_path: Path) -> None:
    said = typed("docs/curl.md", tmp_path)
    steps = [
        '{"n_rows":77,"n_imported":77,"n_refused":0}',
        '"state":"acknowledged","n_outcomes":4',
        '"code":"not_found"',
    ]
    assert [step for step in steps if step not in said] == []
    drawn = re.findall(r'^\{"prompt":"Compute [^"]+","p":([\d.]+),', said, re.MULTILINE)
    assert len(drawn) == 4
    assert all(0.05 < float(p) < 0.95 for p in drawn), "problems of the frontier"


def test_the_notebook_runs_and_its_student_learns(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "docs" / "quickstart.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "300 problems imported" in done.stdout
    drawn = [float(p) for p in re.findall(r"p = ([\d.]+)", done.stdout)]
    assert len(drawn) == 8
    rates = [float(rate) for rate in re.findall(r"checkpoint \d: ([\d.]+) ± ", done.stdout)]
    assert len(rates) == 4
    assert rates[-1] > rates[0] + 0.1
    assert not list(tmp_path.iterdir()), "the service has stopped and left nothing"


def typed(name: str, tmp_path: Path) -> str:
    """What a page's blocks print, run in order, in one shell, in an empty folder beside a real service."""
    found = [block for block in blocks(ROOT / name) if block.language in (*SHELL, "python")]
    run = [block for block in found if block.reason is None]
    assert "curl" in "".join(block.text for block in run)
    assert {block.reason for block in found} <= REASONS
    (tmp_path / "problems.jsonl").write_bytes(OWN_PROBLEMS.read_bytes())
    with serve(tmp_path / "data", None) as service:
        (tmp_path / "data" / "admin.key").write_text(ADMIN_KEY + "\n")
        script = "\n".join(_step(block) for block in run).replace("http://127.0.0.1:8420", service.url)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PACED_")}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env={**environment, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, f"{name}, at the last line named:\n{done.stdout[-4000:]}"
    assert "Traceback" not in done.stdout
    return done.stdout


def _step(block: Block) -> str:
    start = f"echo; echo '== line {block.line}'"
    if block.language == "python":
        return f"{start}\npython - <<'PYTHON'\n{block.text}PYTHON"
    return f"{start}\n{block.text}"
