"""Verdicts over HTTP: the workers' graders, a deadline for what hangs, and what they did in the metrics."""

from collections.abc import Iterator

import httpx2
import pytest

from paced import Client, wire
from paced.errors import NotAllowed
from tests.service import Service, serve


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("grading") / "data", None, graders=1, grading_deadline_s=1.5) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as made:
        yield made


def ask(text: str, answer: str, grader: str = "math", **policy: object) -> wire.AnswerToGrade:
    return wire.AnswerToGrade.model_validate({"text": text, "answer": answer, "grader": grader, "policy": policy})


def test_verdicts_come_back_in_order_with_what_was_judged(client: Client) -> None:
    asked = [
        ask("so \\boxed{56}", "56"),
        ask("The answer is 54.", "56", "numeric"),
        ask("(B)", "B", "choice"),
        ask("anything", "no number", "numeric"),
    ]
    found = client.grade(asked)
    assert [g.verdict for g in found.grades] == ["pass", "fail", "pass", "grader_error"]
    assert [g.extracted for g in found.grades[:2]] == ["56", "54"]
    assert found.grades[3].detail is not None
    assert found.grader_version == client.grader_stats().grader_version


def test_what_hangs_times_out_alone_and_shows_in_the_metrics(client: Client, service: Service) -> None:
    before = client.grader_stats()
    found = client.grade([ask("5", "5"), ask("$9^{9^{9^{9}}}$", "$9^{9^{9^{8}}}$"), ask("7", "7")])
    assert [g.verdict for g in found.grades] == ["pass", "timeout", "pass"]
    after = client.grader_stats()
    assert after.n_graded == before.n_graded + 3
    assert after.n_replaced == before.n_replaced + 1
    assert after.slowest[0].head.startswith("$9^")
    headers = {"Authorization": f"Bearer {client.key}"}
    text = httpx2.get(f"{client.url}/metrics", headers=headers).text
    assert 'paced_graded_answers_total{verdict="timeout"} 1.0' in text
    assert "paced_grader_replaced_total 1.0" in text
    assert "paced_grader_out_of_memory_total 0.0" in text


def test_a_key_without_the_scope_is_refused(client: Client, service: Service) -> None:
    made = client.create_key(wire.KeyCreate(name="reader", scopes=[wire.Scope.READ]))
    with Client(client.url, made.secret) as reader, pytest.raises(NotAllowed, match="train"):
        reader.grade([ask("5", "5")])
