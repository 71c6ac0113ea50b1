"""Files over HTTP and from the command line: counts, refusals by line, ids that stay."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from paced import Client, wire
from paced.cli import build as build_cli
from paced.errors import BadRequest
from tests.app.conftest import SUFFIXES, MakeWorld
from tests.app.world import group, leased, write_problems
from tests.service import ADMIN_KEY, Service


@pytest.fixture
def problem_set(shared_client: Client) -> str:
    """A new, empty set."""
    name = f"imports-{next(SUFFIXES)}"
    return shared_client.create_problem_set(wire.ProblemSetCreate(name=name)).name


@pytest.fixture
def lite_client(lite_service: Service) -> Iterator[Client]:
    with lite_service.client() as made:
        yield made


def write_rows(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def counts(report: wire.ImportReport) -> tuple[int, int, int, int]:
    return report.n_rows, report.n_imported, report.n_twins, report.n_refused


def test_gsm8k(shared_client: Client, problem_set: str, data_folder: Path) -> None:
    report = shared_client.import_problems(problem_set, data_folder / "gsm8k_test.jsonl")
    assert counts(report) == (1319, 1319, 0, 0)
    assert (report.format, report.shape, report.refusals) == ("jsonl", "gsm8k", [])
    found = shared_client.problem_set(problem_set)
    assert (found.n_problems, found.n_rows) == (1319, 1319)
    first = shared_client.problem(problem_set, 0)
    assert (first.answer, first.source, first.grader, first.multiplicity) == ("18", "gsm8k_test.jsonl", "math", 1)
    assert str(first.prompt).startswith("Janet’s ducks lay 16 eggs per day.")
    assert first.solution is not None
    assert first.solution.endswith("#### 18")
    problems = list(shared_client.problems(problem_set, limit=500))
    assert [problem.ordinal for problem in problems] == list(range(1319))
    again = shared_client.import_problems(problem_set, data_folder / "formats" / "hf_gsm8k_test.parquet")
    assert counts(again) == (1319, 0, 1319, 0)
    assert list(shared_client.problems(problem_set, limit=500)) == problems


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("verl_dapo_mini16.parquet", "verl", (16, 16, 0, 0)),
        ("verl_deepscaler_sub.parquet", "verl", (1209, 1207, 2, 0)),
        ("verl_oneshot_pi1_r128.parquet", "verl", (128, 1, 127, 0)),
        ("verl_gsm8k_test_250.jsonl", "verl", (250, 250, 0, 0)),
        ("roll_deepmath.jsonl", "roll", (400, 400, 0, 0)),
        ("nemo_openmathinstruct2_sft.jsonl", "nemo", (100, 100, 0, 0)),
        ("derived/gsm8k_100.csv", "gsm8k", (100, 100, 0, 0)),
        ("derived/gsm8k_50.jsonl.gz", "gsm8k", (50, 50, 0, 0)),
        ("derived/messages_sft.jsonl", "messages", (100, 100, 0, 0)),
    ],
)
def test_formats(
    lite_client: Client, data_folder: Path, name: str, shape: str, expected: tuple[int, int, int, int]
) -> None:
    problem_set = lite_client.create_problem_set(wire.ProblemSetCreate(name=f"formats-{next(SUFFIXES)}")).name
    report = lite_client.import_problems(problem_set, data_folder / "formats" / name)
    assert (report.shape, counts(report)) == (shape, expected)
    found = lite_client.problem_set(problem_set)
    assert (found.n_problems, found.n_rows) == (report.n_imported, report.n_imported + report.n_twins)
    assert report.refusals == []


def write_broken(path: Path) -> Path:
    """Sixteen lines: eleven good ones, one without an answer on 11, and bad ones on 7, 9, 13 and 15."""
    lines = [json.dumps({"question": f"What is {i} + 1?", "answer": str(i + 1)}).encode() for i in range(16)]
    lines[6] = b'{"question": "What is 6 + 1?", "answer": '
    lines[8] = b'{"answer": "9"}'
    lines[10] = b'{"question": "What is 10 + 1?", "answer": "  "}'
    lines[12] = json.dumps({"question": "x" * 20_000_000, "answer": "1"}).encode()
    lines[14] = '{"question": "Où est 14 + 1 ?", "answer": "15"}'.encode("latin-1")
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


REFUSED = [
    (7, "bad_json", "not JSON: "),
    (9, "missing_prompt", "no field holds the prompt; the row has answer."),
    (13, "line_too_long", "longer than 16777216 bytes"),
    (15, "bad_encoding", "byte 0xF9 at byte offset 15 of the line is not UTF-8"),
]


def assert_refused(refusals: list[wire.Refusal], file_name: str) -> None:
    assert [(refusal.file, refusal.line, refusal.code) for refusal in refusals] == [
        (file_name, line, code) for line, code, _ in REFUSED
    ]
    for refusal, (_, _, reason) in zip(refusals, REFUSED, strict=True):
        assert refusal.reason.startswith(reason)


def test_a_broken_file_keeps_its_good_rows(shared_client: Client, problem_set: str, tmp_path: Path) -> None:
    report = shared_client.import_problems(problem_set, write_broken(tmp_path / "broken.jsonl"))
    assert counts(report) == (16, 12, 0, 4)
    assert_refused(report.refusals, "broken.jsonl")
    assert not report.is_refusals_cut
    kept = [problem.answer for problem in shared_client.problems(problem_set)]
    good = [i + 1 for i in range(16) if i + 1 not in {line for line, _, _ in REFUSED}]
    assert kept == ["" if line == 11 else str(line) for line in good]
    assert (report.n_flagged, report.flags) == (1, {"no_answer": 1})


def test_only_the_first_thousand_refusals_are_listed(shared_client: Client, problem_set: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"question": "What is 1 + 1?", "answer": "2"}\n' + "[]\n" * 2500)
    report = shared_client.import_problems(problem_set, file)
    assert counts(report) == (2501, 1, 0, 2500)
    assert (len(report.refusals), report.is_refusals_cut) == (1000, True)
    assert report.refusals[-1].line == 1001


def test_importing_again_keeps_ids_and_counts_twins_once(
    shared_client: Client, problem_set: str, tmp_path: Path
) -> None:
    one, two, three = ({"prompt": f"Compute {i} - 1.", "answer": str(i - 1)} for i in range(3))
    spaced = {"prompt": " Compute  0 -  1.\n", "answer": "-1"}
    first = shared_client.import_problems(problem_set, write_rows(tmp_path / "a.jsonl", one, two, spaced))
    assert counts(first) == (3, 2, 1, 0)
    before = list(shared_client.problems(problem_set))
    assert [(p.ordinal, p.multiplicity) for p in before] == [(0, 2), (1, 1)]

    for _ in range(2):
        again = shared_client.import_problems(problem_set, tmp_path / "a.jsonl")
        assert counts(again) == (3, 0, 3, 0)
        assert list(shared_client.problems(problem_set)) == before
    reordered = write_rows(tmp_path / "renamed.jsonl", three, spaced, two, two, two)
    assert counts(shared_client.import_problems(problem_set, reordered)) == (5, 1, 4, 0)
    after = list(shared_client.problems(problem_set))
    assert [(p.ordinal, p.multiplicity, p.source) for p in after] == [
        (0, 2, "a.jsonl"),
        (1, 3, "a.jsonl"),
        (2, 1, "renamed.jsonl"),
    ]
    assert [p.problem_id for p in after[:2]] == [p.problem_id for p in before]
    assert shared_client.problem_set(problem_set).n_rows == 6


def test_problems_imported_while_others_are_measured(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(10, holdout_share=0.0)
    lease = world.claim(10)
    world.client.import_problems(world.curriculum.problem_set, write_problems(tmp_path, 25))
    receipt = world.report(lease, [group(problem_id, 4) for problem_id in leased(lease)])
    assert (receipt.n_accepted, receipt.state) == (10, "done")
    assert len(world.claim(100).problems) == 15
    assert (world.measurement.n_problems, world.measurement.n_measured) == (25, 10)


def test_filters_find_tags_and_texts_in_any_script(shared_client: Client, problem_set: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": 'Say "hé" and 100% \\ of _it_.', "answer": "1", "tags": ["été", 'a"b']},
        {"prompt": "求解方程。", "answer": "2", "tags": ["代数", "a%"]},
        {"prompt": [{"role": "user", "content": "Chat: 3"}], "answer": "3", "tags": []},
    ]
    shared_client.import_problems(problem_set, write_rows(tmp_path / "tags.jsonl", *rows))
    stored = list(shared_client.problems(problem_set))
    assert [problem.tags for problem in stored] == [["été", 'a"b'], ["代数", "a%"], []]
    assert stored[2].prompt == [wire.Message(role="user", content="Chat: 3")]

    def found(**filters: str) -> list[int]:
        return [problem.ordinal for problem in shared_client.problems(problem_set, limit=1, **filters)]

    for tag, expected in {"été": [0], 'a"b': [0], "代数": [1], "a%": [1], "a": [], "%": [], "b": []}.items():
        assert found(tag=tag) == expected, tag
    texts = {'"hé"': [0], "100%": [0], "\\": [0], "_it_": [0], "SAY": [0], "方程": [1], "chat": [2], "": [0, 1, 2]}
    for text, expected in texts.items():
        assert found(search=text) == expected, text
    assert found(search="%", tag="代数") == []


def test_named_fields_and_a_source(shared_client: Client, problem_set: str, tmp_path: Path) -> None:
    file = tmp_path / "own.csv.gz"
    file.write_bytes(gzip.compress(b'ask,right,kind\n"What is 2 + 2?",4,easy\n'))
    with pytest.raises(BadRequest, match="is not known as JSON") as caught:
        shared_client.import_problems(problem_set, write_rows(tmp_path / "own.bin", "x"))
    assert caught.value.code == "unknown_format"
    options = {"prompt_field": "ask", "answer_field": "right", "tags_field": "kind", "source": "mine"}
    report = shared_client.import_problems(problem_set, file, **options)
    assert (report.format, report.shape, counts(report)) == ("csv.gz", "custom", (1, 1, 0, 0))
    (problem,) = shared_client.problems(problem_set)
    assert (problem.prompt, problem.answer, problem.tags) == ("What is 2 + 2?", "4", ["easy"])
    assert problem.source == "mine"


def test_an_upload_that_breaks_off_changes_nothing(lite_client: Client, lite_service: Service) -> None:
    name = lite_client.create_problem_set(wire.ProblemSetCreate(name=f"broken-{next(SUFFIXES)}")).name
    url = httpx2.URL(lite_client.url)
    head = f"POST /v1/problem-sets/{name}/imports?file_name=a.jsonl HTTP/1.1\r\nHost: x"
    with socket.create_connection((url.host, url.port)) as connection:
        row = b'{"prompt": "p", "answer": "1"}\n'
        connection.sendall(f"{head}\r\nAuthorization: Bearer {ADMIN_KEY}\r\nContent-Length: 99\r\n\r\n".encode() + row)
        time.sleep(0.2)
    deadline = time.monotonic() + 5
    while list((lite_service.settings.data / "spool").glob("import-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list((lite_service.settings.data / "spool").iterdir()) == []
    assert lite_client.problem_set(name).n_rows == 0


# -- paced import


def run_import(service: Service, file: Path, name: str, *options: str) -> Any:
    command = ["import", str(file), "--set", name, "--url", service.url, "--key", ADMIN_KEY, *options]
    return CliRunner().invoke(build_cli(), command)


def test_the_command_exits_with_0_and_prints_one_json_object(lite_service: Service, tmp_path: Path) -> None:
    name = f"cli-{next(SUFFIXES)}"
    file = write_problems(tmp_path, 3)
    done = run_import(lite_service, file, name, "--json", "--grader", "numeric")
    assert done.exit_code == 0
    report = wire.ImportReport.model_validate_json(done.stdout)
    assert (counts(report), report.problem_set) == ((3, 3, 0, 0), name)
    with lite_service.client() as client:
        assert client.problem_set(name).grader == "numeric"
    again = run_import(lite_service, file, name)
    assert again.exit_code == 0
    assert again.stdout.startswith("0 imported, 3 twins, 0 refused of 3 rows in ")


def test_the_command_exits_with_3_when_rows_are_refused(lite_service: Service, tmp_path: Path) -> None:
    file = write_broken(tmp_path / "broken.jsonl")
    done = run_import(lite_service, file, f"cli-{next(SUFFIXES)}", "--json")
    assert done.exit_code == 3
    report = wire.ImportReport.model_validate_json(done.stdout)
    assert counts(report) == (16, 12, 0, 4)
    assert_refused(report.refusals, "broken.jsonl")
    shown = run_import(lite_service, file, f"cli-{next(SUFFIXES)}")
    assert shown.exit_code == 3
    assert "12 imported, 0 twins, 4 refused of 16 rows" in shown.stdout
    assert "broken.jsonl:7: not JSON: " in shown.stdout


def test_the_command_says_what_is_wrong_with_a_file(lite_service: Service, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    failed = run_import(lite_service, empty, f"cli-{next(SUFFIXES)}")
    assert failed.exit_code == 1
    assert isinstance(failed.exception, BadRequest)
    assert failed.exception.code == "empty_file"
    assert run_import(lite_service, tmp_path / "nowhere.jsonl", "x").exit_code == 2
