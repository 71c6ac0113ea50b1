"""paced grade on a file, paced regrade on stored answers of a real service."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from paced import Client, wire
from paced.cli import build as build_cli
from tests.app.world import build, leased, token
from tests.service import ADMIN_KEY, Service, serve
from worker.grading import GRADER_VERSION, grade


def invoke(*command: str) -> Result:
    return CliRunner().invoke(build_cli(), list(command))


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    rows = [
        {"id": 1, "text": "so \\boxed{56}", "answer": "56"},
        {"id": 2, "text": "54", "answer": "56"},
        {"id": 3, "text": "B", "answer": "B", "grader": "choice"},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def test_a_file_is_graded_line_by_line(answers: Path, tmp_path: Path) -> None:
    out = tmp_path / "graded.jsonl"
    found = invoke("grade", str(answers), "-o", str(out), "--graders", "1", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == {
        "grader_version": GRADER_VERSION,
        "n_answers": 3,
        "verdicts": {"pass": 2, "fail": 1},
    }
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"], row["verdict"], row["extracted"]) for row in rows] == [
        (1, "pass", "56"),
        (2, "fail", "54"),
        (3, "pass", "B"),
    ]


def test_an_answer_without_a_verdict_gives_exit_code_3(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "5", "answer": ""}) + "\n")
    found = invoke("grade", str(path), "--graders", "1")
    assert (found.exit_code, found.stdout) == (3, "1 answers: 1 grader_error\n")


@pytest.mark.parametrize("line", ["not json", "[1]", '{"text": "5"}', '{"text": "5", "answer": "5", "grader": "x y"}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "5", "answer": "5"}\n' + line + "\n")
    found = invoke("grade", str(path), "--graders", "1")
    assert found.exit_code == 2
    assert "line 2" in found.output


def test_a_bad_policy_is_named(answers: Path) -> None:
    found = invoke("grade", str(answers), "--policy", "percent=maybe")
    assert found.exit_code == 2
    assert "percent" in found.output


def test_a_policy_decides_where_conventions_differ(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "10%", "answer": "0.1"}) + "\n")
    by_policy = {
        p: invoke("grade", str(path), "--graders", "1", "--policy", f"percent={p}") for p in ("number", "fraction")
    }
    assert {p: found.stdout for p, found in by_policy.items()} == {
        "number": "1 answers: 1 fail\n",
        "fraction": "1 answers: 1 pass\n",
    }


def test_a_set_keeps_the_grader_and_the_policy_that_it_was_made_with(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "Ten of a hundred?", "answer": "10%"}\n')
    access = ("--url", service.url, "--key", ADMIN_KEY)
    made = invoke("import", str(path), "--set", "p", "--grader", "user:mine", "--policy", "percent=number", *access)
    assert made.exit_code == 0, made.output
    with service.client() as client:
        found = client.problem_set("p")
        assert (found.grader, found.policy.percent) == ("user:mine", "number")
    other = invoke("import", str(path), "--set", "p", "--policy", "percent=fraction", *access)
    assert other.exit_code == 2
    assert "another policy" in other.output
    other = invoke("import", str(path), "--set", "p", "--grader", "choice", *access)
    assert other.exit_code == 2
    assert "judged by user:mine" in " ".join(other.output.replace("│", " ").split())
    assert invoke("import", str(path), "--set", "p", *access).exit_code == 0
    exam = tmp_path / "exam.jsonl"
    exam.write_text('{"prompt": "One of two?", "answer": "50%"}\n')
    for grader in ("exact", "choice"):  # what rows are compared with judges nothing
        done = invoke("import", str(path), "--set", grader, "--grader", grader, "--report-overlap", str(exam), *access)
        assert done.exit_code == 0, done.output
    assert invoke("import", str(path), "--set", "q", "--grader", "no such", *access).exit_code == 2


def test_command_line_service_and_process_give_the_same_verdicts(
    service: Service, data_folder: Path, tmp_path: Path
) -> None:
    """Over the pairs of other graders' suites: verdict, judged part and reason, whichever way an answer comes."""
    pairs = [
        json.loads(line) for line in (data_folder / "grader_pairs" / "grader_pairs.jsonl").read_text().splitlines()
    ][::2]
    rows = [{"text": pair["pred"] or "", "answer": pair["gold"]} for pair in pairs]
    here = [grade(row["text"], row["answer"], "math") for row in rows]
    expected = [(found.verdict.value, found.extracted, found.detail) for found in here]

    path, out = tmp_path / "pairs.jsonl", tmp_path / "graded.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    invoke("grade", str(path), "-o", str(out))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["verdict"], line["extracted"], line["detail"]) for line in lines] == expected

    with service.client() as client:
        answered = client.grade([wire.AnswerToGrade(**row) for row in rows]).grades
    assert [(one.verdict.value, one.extracted, one.detail) for one in answered] == expected
    assert {verdict for verdict, _, _ in expected} == {"pass", "fail"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serve(tmp_path / "data", None) as running:
        yield running


def test_stored_answers_are_judged_again_without_rollouts(service: Service, tmp_path: Path) -> None:
    """Answers that an old grader failed: the right ones pass now, truncated ones stay, and each is listed."""
    access = ("--url", service.url, "--key", ADMIN_KEY)
    with service.client() as client:
        profile = client.create_profile(wire.ProfileCreate(max_tokens=16, grader_version="0"))
        curriculum = build(client, tmp_path, 5, holdout_share=0.0, profile_id=profile.profile_id)
        old = client.measurement(curriculum.measurement_id)
        _report_all_failed(client)
        found = invoke("regrade", old.measurement_id, "--graders", "1", "--json", *access)
        assert found.exit_code == 0, found.output
        result = json.loads(found.stdout)
        assert (result["n_answers"], result["n_changed"]) == (40, 5)
        new = client.measurement(result["measurement_id"])
        assert client.profile(new.profile_id).grader_version == GRADER_VERSION
        for estimate in client.estimates(new.measurement_id):
            assert estimate.verdicts == {"pass": 1, "fail": 6, "truncated": 1}
        again = invoke("regrade", old.measurement_id, "--graders", "1", "--json", *access)
        assert json.loads(again.stdout)["n_answers"] == 0
        listed = invoke("disputes", old.measurement_id, "--kind", "graders_differ", "--json", *access)
        assert [d["text"] for d in json.loads(listed.stdout)] == [str(2 * i + 1) for i in range(5)]
        held = invoke("disputes", old.measurement_id, *access)
        assert "5 in all" in held.output
        refused = invoke("regrade", new.measurement_id, *access)
        assert refused.exit_code == 2
        assert "nothing to do" in refused.output


def _report_all_failed(client: Client) -> None:
    """Eight answers a problem, all failed by the grader of then: the right number, six wrong ones, one cut off."""
    lease = client.claim_lease(wire.LeaseClaim(student="tiny", worker="w", max_problems=5))
    fail, cut = wire.Verdict.FAIL, wire.Verdict.TRUNCATED
    groups = []
    for i, problem_id in enumerate(leased(lease)):
        texts = [(str(2 * i + 1), fail), *[("no idea", fail)] * 6, ("and so on and", cut)]
        answers = [wire.Rollout(text=text, verdict=verdict, n_tokens=1) for text, verdict in texts]
        groups.append(wire.RolloutGroup(problem_id=problem_id, checkpoint_index=0, rollouts=answers))
    client.report_rollouts(str(lease.lease_id), wire.LeaseReport(token=token(lease).token, groups=groups))
