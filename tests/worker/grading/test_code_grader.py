"""Programs as answers: refused unless a sandbox is named, and isolated where one is."""

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from paced.wire.grading import Verdict
from worker.grading import Grade, GraderPool, grade

ADD = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7"]})
ASSERTS = "assert add(1, 2) == 3\nassert add(-1, 1) == 0"


def can_unshare() -> bool:
    try:
        return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_unshare = pytest.mark.skipif(not can_unshare(), reason="`unshare -rn true` fails: no user namespaces here")


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACED_CODE_SANDBOX", "unshare")


def block(program: str) -> str:
    return f"Here it is:\n```python\n{program}\n```\nDone."


def judged(program: str, tests: str = ADD) -> Grade:
    return grade(block(program), tests, "code")


@pytest.mark.parametrize("setting", [None, "", "none", "docker"])
def test_refuses_without_a_named_sandbox(setting: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACED_CODE_SANDBOX", raising=False)
    if setting is not None:
        monkeypatch.setenv("PACED_CODE_SANDBOX", setting)
    for text in (block("print(3)"), "no code"):
        result = grade(text, ADD, "code")
        assert result.verdict is Verdict.GRADER_ERROR
        assert "PACED_CODE_SANDBOX" in (result.detail or "")


def test_refuses_where_the_tool_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PACED_CODE_SANDBOX", "bwrap")
    monkeypatch.setenv("PATH", str(tmp_path))
    result = judged("print(3)")
    assert result.verdict is Verdict.GRADER_ERROR
    assert "bwrap, which is not installed" in (result.detail or "")


@pytest.mark.parametrize(
    "tests", ["", "no tests", '{"inputs": ["1"], "outputs": []}', '{"inputs": [], "outputs": []}', "[1]"]
)
def test_a_reference_without_tests_gives_no_verdict(tests: str) -> None:
    result = judged("print(3)", tests)
    assert result.verdict is Verdict.GRADER_ERROR
    assert "reference answer" in (result.detail or "")


@needs_unshare
@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    ("program", "tests", "is_right"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", ADD, True),
        ("print(3)", ADD, False),
        ("print(1 / 0)", ADD, False),
        ("def add(a, b):\n    return a + b", ASSERTS, True),
        ("def add(a, b):\n    return a - b", ASSERTS, False),
        ("import os\nprint('fine', flush=True)\nos._exit(0)", ASSERTS, False),
        ("raise SystemExit", ASSERTS, False),
    ],
)
def test_programs_are_run_against_the_tests(program: str, tests: str, is_right: bool) -> None:
    result = judged(program, tests)
    assert (result.verdict is Verdict.PASS) is is_right, result
    assert result.verdict in {Verdict.PASS, Verdict.FAIL}, result


@needs_unshare
@pytest.mark.usefixtures("sandbox")
def test_the_last_block_counts_and_prose_fails() -> None:
    both = block("print(0)") + block("print(sum(map(int, input().split())))")
    assert grade(both, ADD, "code").verdict is Verdict.PASS
    assert grade("def add(a, b): return a + b", ASSERTS, "code").verdict is Verdict.FAIL


@needs_unshare
@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("while True: pass", "ended with|still ran"),
        ("import time\ntime.sleep(60)", "still ran"),
        ("x = bytearray(2 << 30)", "MemoryError"),
        ("print('x' * (4 << 20))", "ended with|printed"),
        ("open('big', 'wb').write(b'x' * (64 << 20))", "OSError|ended with"),
    ],
)
def test_what_a_program_may_take_is_bounded(program: str, why: str) -> None:
    start = time.perf_counter()
    result = judged(program)
    assert time.perf_counter() - start < 10
    assert result.verdict is Verdict.FAIL
    assert any(part in (result.detail or "") for part in why.split("|")), result.detail


@needs_unshare
@pytest.mark.usefixtures("sandbox")
def test_a_program_sees_no_network_no_files_and_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    monkeypatch.setenv("PACED_KEY", "key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = (
            "import os, socket\n"
            f"assert not os.path.exists({str(secret)!r})\n"
            "assert 'PACED_KEY' not in os.environ\n"
            "assert os.listdir('.') == []\n"
            "assert os.getpid() < 10, 'it has its own process numbers'\n"
            "for path in ('/usr/paced', '/paced'):\n"
            "    try:\n        open(path, 'w')\n    except OSError: pass\n    else: raise AssertionError(path)\n"
            "try:\n"
            f"    socket.create_connection({server.getsockname()!r}, timeout=2)\n"
            "except OSError:\n    print('alone')\n"
        )
        result = judged(program, json.dumps({"inputs": [""], "outputs": ["alone"]}))
        socket.create_connection(server.getsockname()).close()
    assert result.verdict is Verdict.PASS, result.detail


@needs_unshare
@pytest.mark.usefixtures("sandbox")
async def test_programs_are_run_by_the_pool_and_die_with_its_deadline() -> None:
    async with GraderPool(1, deadline_s=2.5) as pool:
        right = await pool.grade(block("print(sum(map(int, input().split())))"), ADD, "code")
        slow = await pool.grade(block("import time\ntime.sleep(60)"), ADD, "code")
        after = await pool.grade("5", "5", "math")
    assert (right.verdict, slow.verdict, after.verdict) == (Verdict.PASS, Verdict.TIMEOUT, Verdict.PASS)
