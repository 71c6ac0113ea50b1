"""What an import decides about rows: twins, conflicts, flags, overlap, near-twins, dry runs, folders."""

import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from app.errors import Busy
from app.flow.problems import intake
from app.flow.problems.store import ProblemStore
from paced import Client, wire
from paced.cli import build as build_cli
from paced.errors import BadRequest, NotFound, Unavailable
from tests.app.conftest import SUFFIXES, MakeWorld
from tests.app.test_imports import write_rows
from tests.service import ADMIN_KEY, Service


@pytest.fixture
def problem_set(shared_client: Client) -> str:
    return make_set(shared_client)


def make_set(client: Client) -> str:
    return client.create_problem_set(wire.ProblemSetCreate(name=f"rules-{next(SUFFIXES)}")).name


def row(prompt: str, answer: Any) -> dict[str, Any]:
    return {"prompt": prompt, "answer": answer}


def states(client: Client, name: str) -> list[tuple[str, str | None]]:
    return [(problem.answer, problem.flag) for problem in client.problems(name)]


def counts(report: wire.ImportReport) -> tuple[int, int, int, int, int]:
    return report.n_rows, report.n_imported, report.n_twins, report.n_flagged, report.n_refused


# -- identity


@pytest.mark.parametrize("chunk_drafts", [1, 5000])
def test_one_text_with_two_answers_is_flagged_and_listed(
    shared_client: Client, problem_set: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_drafts: int
) -> None:
    monkeypatch.setattr(intake, "CHUNK_DRAFTS", chunk_drafts)
    rows = [row("Add 60 and 4.", "64"), row("Two?", "2"), row("Add  60 and 4.", "6"), row("Two?", "$2.0$")]
    file = write_rows(tmp_path / "a.jsonl", *rows, row("Add 60 and 4.", "6.0"))
    rehearsed = shared_client.import_problems(problem_set, file, dry_run=True)
    report = shared_client.import_problems(problem_set, file)
    assert counts(report) == counts(rehearsed) == (5, 2, 3, 1, 0)
    assert report.flags == rehearsed.flags == {"conflicting_answers": 1}
    (conflict,) = report.conflicts
    assert (conflict.line, conflict.answer, conflict.first_line, conflict.first_answer) == (3, "6", 1, "64")
    first = shared_client.problem(problem_set, 0)
    assert (first.state, first.answer, first.multiplicity) == ("flagged", "64", 3)
    assert first.flag_detail == "the same text has the answers 64 (line 1) and 6 (line 3)"
    assert shared_client.problem(problem_set, 1).state == "ready"
    assert shared_client.problem_set(problem_set).n_flagged == 1
    again = shared_client.import_problems(problem_set, file)
    assert (again.n_flagged, again.n_conflicts) == (0, 1)
    assert shared_client.problem_set(problem_set).n_flagged == 1


@pytest.mark.parametrize(
    "answer", ["64", "64.0", "$64$", " 64. ", "\\boxed{64}", 64.0, "064", "128/2", "\\frac{128}{2}"]
)
def test_another_spelling_of_the_answer_is_no_conflict(
    lite_client: Client, tmp_path: Path, answer: str | float
) -> None:
    problem_set = make_set(lite_client)
    rows = [row("How many?", "64"), row("How many?", answer)]
    report = lite_client.import_problems(problem_set, write_rows(tmp_path / "a.jsonl", *rows))
    assert (report.n_twins, report.n_conflicts, report.n_flagged) == (1, 0, 0)


def test_estimates_stay_with_the_content_and_a_conflict_takes_it_out(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(10, holdout_share=0.0)
    world.measure(lambda i: i % 9)
    name, client = world.curriculum.problem_set, world.client
    before, ids = world.estimates(), world.problem_ids()
    rows = [json.loads(line) for line in (tmp_path / "sums.jsonl").read_text().splitlines()]
    spaced = [{**one, "prompt": "Question:  " + one["prompt"].replace(" ", "  ")} for one in reversed(rows)]
    renamed = write_rows(tmp_path / "renamed.jsonl", *spaced, row("Compute 99 + 1.", "100"))
    assert counts(client.import_problems(name, renamed)) == (11, 1, 10, 0, 0)
    assert world.problem_ids()[:10] == ids
    after = world.estimates()
    assert {problem_id: after[problem_id] for problem_id in ids} == before

    wrong = write_rows(tmp_path / "wrong.jsonl", {**rows[4], "answer": "-9"})
    report = client.import_problems(name, wrong)
    assert (report.n_flagged, report.conflicts[0].first_line, report.conflicts[0].first_answer) == (1, None, "9")
    flagged = client.problem(name, 4)
    assert flagged.flag_detail == "the same text has the answers 9 (stored before) and -9 (line 1)"
    assert ids[4] not in world.draw(8).problem_id
    assert world.measurement.n_flagged == 1
    client.decide(name, 4, wire.ProblemDecision(state=wire.ProblemState.READY, note="9 is right", decided_by="me"))
    assert client.import_problems(name, wrong).n_flagged == 0
    assert client.problem(name, 4).state == "ready"


def test_an_answer_that_was_missing_is_filled_in(shared_client: Client, problem_set: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", row("One?", ""), row("Two?", None), row("Three?", 3), row("One?", " "))
    report = shared_client.import_problems(problem_set, file)
    assert (counts(report), report.flags) == ((4, 3, 1, 2, 0), {"no_answer": 2})
    assert "name it (answer_field)" in report.warnings[0]
    answered = shared_client.import_problems(problem_set, write_rows(tmp_path / "b.jsonl", row("One?", 1)))
    assert (answered.n_answered, answered.n_conflicts) == (1, 0)
    assert states(shared_client, problem_set) == [("1", None), ("", "no_answer"), ("3", None)]
    assert shared_client.problem_set(problem_set).n_flagged == 1
    assert shared_client.import_problems(problem_set, file).n_flagged == 0


def test_an_interrupted_import_leaves_whole_chunks_and_is_finished_by_repeating_it(
    shared_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "CHUNK_ROWS", 10)
    rows = [row(f"What is {n % 12} + 1?", str(n % 12 + 1)) for n in range(40)]
    problem_set, whole = make_set(shared_client), make_set(shared_client)
    file = write_rows(tmp_path / "a.jsonl", *rows)
    shared_client.import_problems(whole, file)

    def kept(name: str) -> list[tuple[str, int]]:
        return [(problem.answer, problem.multiplicity) for problem in shared_client.problems(name)]

    n_added, add = 0, ProblemStore.add

    async def add_twice(store: ProblemStore, *arguments: Any) -> Any:
        nonlocal n_added
        n_added += 1
        if n_added > 2:
            raise Busy("the database does not answer", code="no_database")
        return await add(store, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ProblemStore, "add", add_twice)
        with pytest.raises(Unavailable):
            shared_client.import_problems(problem_set, file)
    assert kept(problem_set) == [(str(n + 1), 2 if n < 8 else 1) for n in range(12)]
    assert shared_client.problem_set(problem_set).n_rows == 20
    assert counts(shared_client.import_problems(problem_set, file)) == (40, 0, 40, 0, 0)
    assert kept(problem_set) == kept(whole) == [(str(n + 1), 4 if n < 4 else 3) for n in range(12)]
    assert shared_client.problem_set(problem_set).n_rows == 40


def test_what_a_killed_process_left_is_swept(lite_service: Service, lite_client: Client, tmp_path: Path) -> None:
    problem_set, file = make_set(lite_client), write_rows(tmp_path / "a.jsonl", row("One?", 1))
    lite_client.import_problems(problem_set, file)
    spool = lite_service.settings.data / "spool"
    old, new = spool / "import-old", spool / "import-new"
    for left in (old, new):
        left.touch()
    os.utime(old, (1, 1))
    lite_client.import_problems(problem_set, file)
    assert list(spool.iterdir()) == [new]
    new.unlink()


# -- what no grader can judge


@pytest.mark.parametrize(
    ("prompt", "answer", "flag"),
    [
        ("Prove that 2 is even.", "", "proof"),
        (
            "Let x be odd. Show that x + 1 is even.",
            "Write x as 2k + 1, so that x + 1 equals 2k + 2, which is even.",
            "proof",
        ),
        ("Prove that f is constant and find f(3).", "7", None),
        ("What is 1 + 1?", "N/A", "placeholder"),
        ("What is 1 + 1?", "See solution.", "placeholder"),
        ("What is 1 + 1?", "...", "placeholder"),
        ("What is 1 + 1?", "TODO", "placeholder"),
        ("What is 1 + 1?", "None", "placeholder"),
        ("How many solutions?", "no solution", None),
        ("Which letter?", "x", None),
        ("In the figure below, AB = 3. Find BC.", "4", "missing_figure"),
        ("Two circles touch, as shown. Find the area.", "4", "missing_figure"),
        ("Find x. ![](https://example.org/a.png)", "4", "missing_figure"),
        ("In the diagram, AB = 3. [asy] draw((0,0)--(1,1)); [/asy] Find BC.", "4", None),
        ("Figure out how many movies are shown in total.", "4", None),
        ("Let n = 4. (a) Find n + 1. (b) Find n + 2.", "5, 6", "multi_part"),
        ("Which is even? (A) Is it 1? (B) Is it 2?", "B", None),
        ("Let f(a) = 2 and f(b) = 3. Find a + b.", "5", None),
    ],
)
def test_flags_of_one_row(lite_client: Client, tmp_path: Path, prompt: str, answer: str, flag: str | None) -> None:
    problem_set = make_set(lite_client)
    lite_client.import_problems(problem_set, write_rows(tmp_path / "a.jsonl", row(prompt, answer)))
    (problem,) = lite_client.problems(problem_set)
    assert problem.flag == flag
    assert problem.state == ("flagged" if flag else "ready")
    assert bool(problem.flag_detail) == bool(flag)


def test_prompts_alone_are_stored_if_asked(lite_client: Client, tmp_path: Path) -> None:
    problem_set, file = make_set(lite_client), write_rows(tmp_path / "a.jsonl", {"prompt": "Say a number."})
    refused = lite_client.import_problems(problem_set, file)
    assert [refusal.code for refusal in refused.refusals] == ["missing_answer"]
    assert "allow_no_answer" in refused.refusals[0].reason
    report = lite_client.import_problems(problem_set, file, allow_no_answer=True)
    assert report.flags == {"no_answer": 1}


# -- benchmarks and near-twins


def test_problems_of_a_benchmark_are_flagged_or_reported(
    shared_client: Client, problem_set: str, data_folder: Path
) -> None:
    olympiad, deepscaler = make_set(shared_client), make_set(shared_client)
    shared_client.import_problems(olympiad, data_folder / "olympiadbench_oe_to_maths_en.jsonl")
    shared_client.import_problems(deepscaler, data_folder / "deepscaler_sub.jsonl")
    file = data_folder / "dapo_math_sample.jsonl"
    report = shared_client.import_problems(
        problem_set, file, exclude_overlap=[olympiad], report_overlap=[deepscaler], near_twins="off"
    )
    found = [one.problem_set for one in report.overlaps]
    assert {name: found.count(name) for name in (olympiad, deepscaler)} == {olympiad: OLYMPIAD, deepscaler: DEEPSCALER}
    flagged = [problem for problem in shared_client.problems(problem_set, limit=500) if problem.flag == "overlap"]
    assert len(flagged) == report.flags["overlap"] == OLYMPIAD
    for problem in flagged:
        detail = problem.flag_detail or ""
        assert f"of the set {olympiad}" in detail
        ordinal = int(detail.split()[2])
        assert shared_client.problem(olympiad, ordinal).fingerprint == problem.fingerprint
    later = shared_client.import_problems(problem_set, file, exclude_overlap=[deepscaler], near_twins="off")
    assert 0 < later.n_flagged <= DEEPSCALER
    assert shared_client.problem_set(problem_set).n_flagged == report.n_flagged + later.n_flagged
    with pytest.raises(BadRequest, match="its own benchmark"):
        shared_client.import_problems(problem_set, file, report_overlap=[problem_set])
    with pytest.raises(NotFound, match="there is no problem set 'nowhere'"):
        shared_client.import_problems(problem_set, file, report_overlap=["nowhere"])


OLYMPIAD, DEEPSCALER = 3, 34

LONG = "A farmer has 12 red hens and 7 white hens. Each hen lays 3 eggs per week. How many eggs do all hens lay{}?"


def test_near_twins_are_reported_merged_or_left(shared_client: Client, tmp_path: Path) -> None:
    rows = [
        row(LONG.format(" in a single week"), "57"),
        row(LONG.format(" in a single week").replace("12", "$12$"), "57"),
        row(LONG.format(" in a single week").replace("12", "13"), "60"),
        row(LONG.format(" during a single week"), "57"),
        row(LONG.format(" in every single week"), "58"),
    ]
    file = write_rows(tmp_path / "a.jsonl", *rows)
    expected = {"report": (5, 3), "keep": (5, 0), "off": (5, 0), "merge": (3, 3)}
    for mode, (n_problems, n_pairs) in expected.items():
        name = make_set(shared_client)
        for _ in range(2):
            report = shared_client.import_problems(name, file, near_twins=mode)
            found = shared_client.problem_set(name)
            assert (found.n_problems, found.n_rows, found.n_flagged) == (n_problems, 5, 0), mode
        report = shared_client.import_problems(make_set(shared_client), file, near_twins=mode)
        assert len(report.near_twins) == n_pairs, mode
        assert report.n_near_twins == (0 if mode == "off" else 3), mode
        for pair in report.near_twins:
            assert pair.similarity >= 0.75
            assert pair.is_merged == (mode == "merge" and pair.line in {2, 4})
            assert pair.other_line in {1, 2, 4}
            assert (pair.answer != pair.other_answer) == (pair.line == 5)
    name = make_set(shared_client)
    shared_client.import_problems(name, write_rows(tmp_path / "first.jsonl", rows[0]))
    (pair,) = shared_client.import_problems(name, write_rows(tmp_path / "b.jsonl", rows[3])).near_twins
    assert (pair.other_line, pair.other_ordinal) == (None, 0)


@pytest.mark.parametrize("chunk_drafts", [1, 5000])
def test_a_merged_row_whose_text_has_another_answer_is_a_conflict(
    lite_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_drafts: int
) -> None:
    monkeypatch.setattr(intake, "CHUNK_DRAFTS", chunk_drafts)
    text, other = LONG.format(" in a week"), LONG.format(" in a week").replace("12", "$12$")
    rows = [row(text, "57"), row(other, "57"), row(other, "58"), row(other, "57")]
    name = make_set(lite_client)
    report = lite_client.import_problems(name, write_rows(tmp_path / "a.jsonl", *rows), near_twins="merge")
    assert counts(report) == (4, 1, 3, 1, 0)
    (problem,) = lite_client.problems(name)
    assert (problem.flag, problem.multiplicity) == ("conflicting_answers", 4)
    exam = make_set(lite_client)
    lite_client.import_problems(exam, write_rows(tmp_path / "exam.jsonl", row(other, "57")))
    name = make_set(lite_client)
    lite_client.import_problems(name, tmp_path / "a.jsonl", near_twins="merge", exclude_overlap=[exam])
    assert [problem.flag for problem in lite_client.problems(name)] == [None, "overlap"]


# -- dry runs and the command


def run_import(service: Service, path: Path, name: str, *options: str) -> Any:
    command = ["import", str(path), "--set", name, "--url", service.url, "--key", ADMIN_KEY, *options]
    return CliRunner().invoke(build_cli(), command)


def test_a_dry_run_shows_what_would_be_stored(lite_service: Service, lite_client: Client, tmp_path: Path) -> None:
    rows = [row(f"Compute {n} - 1.", n - 1) for n in range(8)]
    file = write_rows(tmp_path / "a.jsonl", rows[0], row("One?", "N/A"), *rows[1:], {"answer": "1"})
    name = f"dry-{next(SUFFIXES)}"
    done = run_import(lite_service, file, name, "--dry-run", "--json")
    report = wire.ImportReport.model_validate_json(done.stdout)
    assert (done.exit_code, report.is_dry_run, counts(report)) == (3, True, (10, 9, 0, 1, 1))
    assert [(one.line, one.answer, one.state, one.flag) for one in report.preview[:3]] == [
        (1, "-1", "ready", None),
        (2, "N/A", "flagged", "placeholder"),
        (3, "0", "ready", None),
    ]
    assert (len(report.preview), report.preview[0].source, report.preview[0].grader) == (5, "a.jsonl", "math")
    with pytest.raises(NotFound):
        lite_client.problem_set(name)
    shown = run_import(lite_service, file, name, "--dry-run")
    assert shown.stdout.startswith("9 would be imported, 0 twins, 1 refused of 10 rows")
    assert "a.jsonl:2: 'One?' -> 'N/A' [placeholder: the answer is 'N/A']" in shown.stdout


def test_the_command_compares_with_a_benchmark_file(lite_service: Service, lite_client: Client, tmp_path: Path) -> None:
    exam = write_rows(tmp_path / f"exam{next(SUFFIXES)}.jsonl", row("Secret 1 + 1?", "2"))
    file = write_rows(tmp_path / "a.jsonl", row("Secret  1 + 1?", "2"), row("Open 2 + 2?", "4"))
    name = make_set(lite_client)
    early = run_import(lite_service, file, name, "--exclude-overlap", str(exam), "--dry-run")
    assert early.exit_code == 2
    done = run_import(lite_service, file, name, "--exclude-overlap", str(exam), "--json")
    report = wire.ImportReport.model_validate_json(done.stdout)
    assert (done.exit_code, report.flags) == (0, {"overlap": 1})
    assert [(one.line, one.problem_set) for one in report.overlaps] == [(1, f"benchmark-{exam.stem}")]
    assert states(lite_client, name) == [("2", "overlap"), ("4", None)]
    shown = run_import(lite_service, file, make_set(lite_client), "--report-overlap", f"benchmark-{exam.stem}")
    assert f"a.jsonl:1: also problem 0 of benchmark-{exam.stem}" in shown.stdout


def test_the_command_maps_rows_by_templates(lite_service: Service, lite_client: Client, tmp_path: Path) -> None:
    template = tmp_path / "prompt.j2"
    template.write_text("{{ stem }}\n(A) {{ a }}\n(B) {{ b }}")
    file = write_rows(tmp_path / "a.jsonl", {"stem": "Even?", "a": 1, "b": 2, "key": "b"})
    name = make_set(lite_client)
    options = ("--prompt-template", f"@{template}", "--answer-template", "{{ key | upper }}", "--source", "mine")
    assert run_import(lite_service, file, name, *options).exit_code == 0
    (problem,) = lite_client.problems(name)
    assert (problem.prompt, problem.answer, problem.source) == ("Even?\n(A) 1\n(B) 2", "B", "mine")
    bad = run_import(lite_service, file, name, "--prompt-template", "{{ oops")
    assert isinstance(bad.exception, BadRequest)
    assert bad.exception.code == "bad_template"


def test_the_command_imports_folders_of_datasets(lite_service: Service, lite_client: Client, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"question": [f"What is {n} + 2?" for n in range(6)], "answer": [str(n + 2) for n in range(6)]}
    )
    saved, cloned = tmp_path / "saved", tmp_path / "cloned"
    for folder in (saved / "train", saved / "test", cloned / "data", cloned / ".cache"):
        folder.mkdir(parents=True)
    (saved / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (saved / "train" / "state.json").write_text("{}")
    frame[:2].write_ipc_stream(saved / "train" / "data-00000-of-00002.arrow")
    frame[2:4].write_ipc_stream(saved / "train" / "data-00001-of-00002.arrow")
    frame[4:].write_ipc_stream(saved / "test" / "data-00000-of-00001.arrow")
    frame[:5].write_parquet(cloned / "data" / "train-00000-of-00001.parquet")
    frame.write_parquet(cloned / ".cache" / "old.parquet")
    name = make_set(lite_client)
    both = run_import(lite_service, saved, name)
    assert both.exit_code == 2
    done = run_import(lite_service, saved, name, "--split", "train", "--json")
    found = json.loads(done.stdout)
    assert (found["n_rows"], found["n_imported"]) == (4, 4)
    assert [one["file"] for one in found["files"]] == ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    assert run_import(lite_service, cloned, name, "--json").exit_code == 0
    assert lite_client.problem_set(name).n_problems == 5
    assert run_import(lite_service, tmp_path / "saved" / "train", name).exit_code == 0
    (tmp_path / "bare").mkdir()
    assert run_import(lite_service, tmp_path / "bare", name).exit_code == 2
