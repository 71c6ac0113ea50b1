"""Texts kept by ETag: a batch of ids gets the texts that the service has now, and asks for as little as it can."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.main import create_app
from app.settings import Settings
from paced import Client, texts, wire
from paced.testing import in_process
from paced.texts import FRESH_S, Texts
from tests.app.world import build
from tests.paced.filling import fill
from tests.service import ADMIN_KEY, Service, serve

PROMPT_CHARS = 240  # of a grade-school word problem; its worked solution is a little longer


class Clock:
    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


class Asking:
    """A client whose questions for texts are counted."""

    def __init__(self, client: Client, texts: Texts) -> None:
        self.client, self.texts = client, texts
        self.asked: list[wire.ProblemTextsQuery] = []
        self.n_sent: list[int] = []

    def with_texts(self, batch: wire.Batch) -> wire.Batch:
        query = self.texts.unknown(batch)
        if query is not None:
            answer = self.client.problem_texts(query)
            self.asked.append(query)
            self.n_sent.append(len(answer.texts))
            self.texts.keep(batch.curriculum_id, query, answer)
        return self.texts.filled(batch)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("texts") / "data", None) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as made:
        yield made


@pytest.fixture(scope="module")
def curriculum(service: Service, tmp_path_factory: pytest.TempPathFactory) -> wire.Curriculum:
    with service.client() as made:
        return build(made, tmp_path_factory.mktemp("files"), 60, holdout_share=0.0)


def test_a_batch_of_ids_gets_the_texts_of_the_service(client: Client, curriculum: wire.Curriculum) -> None:
    batch = client.draw_batch(curriculum.curriculum_id, 12, include="ids")
    full = client.with_texts(batch)
    assert full == client.batch(batch.batch_id)
    assert [(problem.problem_id, weight) for problem, weight in full.items()] == list(
        zip(batch.problem_id, batch.loss_weight, strict=True)
    )
    client.acknowledge(batch.batch_id)


@pytest.mark.parametrize("is_file", [False, True])
def test_what_is_kept_is_not_asked_for_again(
    client: Client, curriculum: wire.Curriculum, tmp_path: Path, is_file: bool
) -> None:
    clock = Clock()
    asking = Asking(client, Texts(tmp_path / "cache" / "texts" if is_file else None, clock))
    one, other = (client.draw_batch(curriculum.curriculum_id, 20, include="ids") for _ in range(2))
    both = one.model_copy(update={"problem_id": [*one.problem_id, *other.problem_id]})
    asking.with_texts(one)
    assert asking.with_texts(one) == client.batch(one.batch_id)
    assert [problem.problem_id for problem in asking.with_texts(both).problems or []] == both.problem_id
    assert [query.problem_ids for query in asking.asked] == [one.problem_id, other.problem_id]

    clock.now += FRESH_S + 1  # all of them are old: one question, and no text comes back
    asking.with_texts(both)
    asking.with_texts(both)
    assert [len(query.etags) for query in asking.asked] == [0, 0, 40]
    assert asking.n_sent == [20, 20, 0]
    asking.texts.close()
    if is_file:
        again = Asking(client, Texts(tmp_path / "cache" / "texts", clock))
        assert again.with_texts(one) == client.batch(one.batch_id)
        assert again.asked == []
        again.texts.close()
    for batch in (one, other):
        client.acknowledge(batch.batch_id)


def test_a_text_that_changed_is_fetched_anew(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "open.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"What is {i} + 1?"}) + "\n" for i in range(3)))
    client.create_problem_set(wire.ProblemSetCreate(name="open", grader=wire.GraderName.NUMERIC))
    client.import_problems("open", file, allow_no_answer=True)
    ids = [problem.problem_id for problem in client.problems("open")]
    before = {
        text.problem_id: text.etag for text in client.problem_texts(wire.ProblemTextsQuery(problem_ids=ids)).texts
    }
    file.write_text(json.dumps({"prompt": "What is 1 + 1?", "answer": "2"}) + "\n")
    client.import_problems("open", file)
    changed = client.problem_texts(wire.ProblemTextsQuery(problem_ids=ids, etags=before)).texts
    assert [(text.problem_id, text.answer) for text in changed] == [(ids[1], "2")]
    assert changed[0].etag != before[ids[1]]


def test_ids_that_no_problem_has_are_left_out_and_twice_is_once(client: Client, curriculum: wire.Curriculum) -> None:
    known = next(client.problems("sums")).problem_id
    found = client.problem_texts(wire.ProblemTextsQuery(problem_ids=[known, 10**9, known])).texts
    assert [text.problem_id for text in found] == [known]


def test_the_oldest_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_TEXTS", 30)
    monkeypatch.setattr(texts, "TRIM_EVERY", 10)
    clock, kept = Clock(), Texts(now=lambda: clock.now)
    for first in range(0, 100, 10):
        clock.now += 1
        fields = {"etag": "e", "prompt": "?", "answer": "", "grader": "math", "solution": None, "tags": []}
        answer = wire.ProblemTexts.model_validate({"texts": [{"problem_id": first + i, **fields} for i in range(10)]})
        kept.keep("cur_1", wire.ProblemTextsQuery(problem_ids=list(range(first, first + 10))), answer)
    assert sorted(kept._found("cur_1", range(100))) == list(range(70, 100))
    kept.close()


def test_processes_share_a_file(client: Client, curriculum: wire.Curriculum, tmp_path: Path) -> None:
    batch = client.draw_batch(curriculum.curriculum_id, 20, include="ids")
    answer = client.problem_texts(wire.ProblemTextsQuery(problem_ids=batch.problem_id))
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(tmp_path / "texts", batch, answer)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    client.acknowledge(batch.batch_id)


def test_ids_only_batches_are_at_least_five_times_smaller(tmp_path: Path) -> None:
    """256 problems of the usual length, as bytes of the answer."""
    rows = [
        {
            "question": f"{i}: " + "a farmer sells eggs at the market " * (PROMPT_CHARS // 34),
            "answer": "he keeps a dozen and sells the rest for a dollar " * (PROMPT_CHARS // 40) + f"#### {i}",
        }
        for i in range(400)
    ]
    file = tmp_path / "words.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Settings(data=tmp_path / "data", admin_key=ADMIN_KEY)
    with in_process(create_app(settings)) as inside, Client("http://s", ADMIN_KEY, http_transport=inside) as client:
        client.create_problem_set(wire.ProblemSetCreate(name="words", grader=wire.GraderName.MATH))
        assert client.import_problems("words", file, near_twins="off").n_imported == 400
        client.create_student(wire.StudentCreate(name="s"))
        client.register_checkpoint("s", wire.CheckpointCreate(uri="/m"))
        profile = client.create_profile(wire.ProfileCreate())
        curriculum = client.create_curriculum(
            wire.CurriculumCreate(name="c", student="s", problem_set="words", profile_id=profile.profile_id)
        )
        batch = client.draw_batch(curriculum.curriculum_id, 256, include="ids")
        path = f"/v1/batches/{batch.batch_id}"
        sizes = {
            include: len(client._transport._http.get(path, params={"include": include}).content)
            for include in ("ids", "problems")
        }
    assert sizes["problems"] >= 5 * sizes["ids"], sizes


CLOSED_WHILE_READ = """
import sqlite3, threading
from paced import wire
from paced.texts import Texts

ids = list(range(400))
text = {"prompt": "?" * 200, "answer": "1", "grader": "math", "solution": None, "tags": [], "etag": "e"}
answer = wire.ProblemTexts.model_validate({"texts": [{**text, "problem_id": i} for i in ids]})
asked = wire.ProblemTextsQuery(problem_ids=ids)


def read(texts, is_reading):
    is_reading.set()
    try:
        while True:
            texts.keep("c", asked, answer)
    except sqlite3.ProgrammingError:
        pass


for _ in range(100):
    texts, is_reading = Texts(), threading.Event()
    threads = [threading.Thread(target=read, args=(texts, is_reading)) for _ in range(2)]
    for thread in threads:
        thread.start()
    is_reading.wait()
    texts.close()
    for thread in threads:
        thread.join()
"""


def test_closed_under_threads_that_use_them_nothing_crashes() -> None:
    """In a process of its own, which would die."""
    done = subprocess.run([sys.executable, "-c", CLOSED_WHILE_READ], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
