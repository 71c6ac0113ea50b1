"""A teacher over HTTP in whole runs: its targets are those of the same weights here, and are computed once."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paced import Client
from paced.losses import KLSettings, Projection, TopK, distillation_loss
from paced.wire import BatchProblem
from tests.worker.distill.serving import Serving, serving
from tests.worker.distill.tiny import lines_of, tiny_folder
from tests.worker.distill.world import losses, make_config, make_curriculum, run
from worker.distill.data import Example
from worker.distill.errors import ModelRefused, TeacherSilent
from worker.distill.model import load_tokenizer
from worker.distill.teachers.addresses import TeacherAt
from worker.distill.teachers.by_tag import Teachers
from worker.distill.teachers.local import LocalModel
from worker.distill.teachers.served import ServedModel
from worker.distill.teachers.stored import Targets
from worker.distill.teachers.target import Target, stacked

CPU = torch.device("cpu")
EXAMPLES = [
    Example(1, [5, 6, 7, 8], [9, 10, 5, 6, 7, 8], [20, 21, 2], 0.5),
    Example(2, [30, 31], [33, 34, 35, 30, 31], [40, 41, 42, 43, 2], 2.0),
]
FORWARD = [{"stage": "forward_kl", "steps": 3}]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    with serving(tiny_folder(tmp_path / "teacher", seed=1)) as running:
        yield running


def served(server: Serving) -> ServedModel:
    return ServedModel(TeacherAt(at=server.url, model="teacher"), len(load_tokenizer(server.folder)), 4, 60.0)


def local(folder: Path) -> LocalModel:
    model = LocalModel(folder, batch_size=1)
    model.load(CPU, torch.float32)
    return model


def scored(source: ServedModel | LocalModel, top_k: int) -> list[Target]:
    found = source.score(EXAMPLES, top_k)
    source.close()
    return found


def test_a_served_teacher_tells_what_the_same_weights_tell_here(server: Serving) -> None:
    here, there = scored(local(server.folder), 7), scored(served(server), 7)
    for ours, theirs in zip(here, there, strict=True):
        for row in range(len(ours.ids_A_K)):
            a, b = (
                dict(zip(t.ids_A_K[row].tolist(), t.logprobs_A_K[row].tolist(), strict=True)) for t in (ours, theirs)
            )
            a.pop(-1, None), b.pop(-1, None)
            assert a == pytest.approx(b, abs=1e-5)
        assert ours.ids_A_K[:, 0].tolist() == theirs.ids_A_K[:, 0].tolist()
        np.testing.assert_allclose(ours.tail_A, theirs.tail_A, atol=1e-5)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_with_nearly_all_tokens_listed_the_loss_is_the_exact_one(server: Serving, divergence: str) -> None:
    torch.manual_seed(0)
    n_words = len(load_tokenizer(server.folder))
    hidden, weight = 0.3 * torch.randn(2, 5, 8), torch.randn(n_words, 8)
    mask = torch.arange(5)[None] < torch.tensor([[3], [5]])

    def loss(side: Projection | TopK) -> float:
        student = Projection(hidden, weight)
        found, _ = distillation_loss(
            student, side, mask, torch.tensor([0.5, 2.0]), denominator=2.0, settings=KLSettings(divergence)
        )
        return found.item()

    exact = loss(local(server.folder).side(EXAMPLES))
    many, few = (loss(stacked(scored(local(server.folder), top_k), CPU)) for top_k in (n_words - 3, 5))
    assert 0 < few < many <= exact
    assert many == pytest.approx(exact, rel=0.03)  # two tokens are left to the tail


def settings(server: Serving, **fields: Any) -> dict[str, Any]:
    return {"teacher": server.url, "batch_size": 6, "teacher_top_k": 8, "teacher_attempts": 1, **fields}


def test_a_second_epoch_and_a_second_run_ask_the_teacher_for_nothing(
    sqlite_client: Client, server: Serving, student: Path, tmp_path: Path
) -> None:
    """Behaviour 27: targets are computed once, stored as top-k with tail, and used again."""
    curriculum = make_curriculum(sqlite_client, tmp_path, n=6, holdout_share=0, schedule=FORWARD)
    fields = settings(server, targets_dir=tmp_path / "targets")
    run(make_config(curriculum, student, tmp_path / "out", **fields), sqlite_client)
    lines = lines_of(tmp_path / "out" / "metrics.jsonl")
    assert [(line["n_sequences"], line["n_scored"]) for line in lines] == [(6, 6), (6, 0), (6, 0)]
    before = server.n_scored, server.n_written
    assert before == (6 + 2, 6)  # and the preflight's two

    run(make_config(curriculum, student, tmp_path / "again", run_name="again", **fields), sqlite_client)
    assert (server.n_scored, server.n_written) == (8 + 2, 6)  # one more preflight
    assert losses(tmp_path / "again") == pytest.approx(losses(tmp_path / "out"), rel=1e-5)


def test_the_students_own_text_is_scored_each_time_and_not_stored(
    sqlite_client: Client, server: Serving, student: Path, tmp_path: Path
) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path, n=6, schedule=[{"stage": "reverse_kl", "steps": 2}])
    run(make_config(curriculum, student, tmp_path / "out", **settings(server, batch_size=4)), sqlite_client)
    lines = lines_of(tmp_path / "out" / "metrics.jsonl")
    assert [line["n_scored"] for line in lines] == [line["n_sequences"] for line in lines]
    assert [file.name for file in (tmp_path / "out" / "targets").glob("*/*")] == ["probe-k8.npz"]


def test_a_local_teacher_can_be_asked_once_too(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path, n=6, holdout_share=0, schedule=FORWARD)
    folder = tiny_folder(tmp_path / "teacher", seed=1)
    for name, top_k in (("whole", None), ("listed", 60)):
        fields = {"teacher": str(folder), "batch_size": 6, "teacher_top_k": top_k, "run_name": name}
        run(make_config(curriculum, student, tmp_path / name, **fields), sqlite_client)
    assert [line["n_scored"] for line in lines_of(tmp_path / "listed" / "metrics.jsonl")] == [6, 0, 0]
    assert losses(tmp_path / "listed") == pytest.approx(losses(tmp_path / "whole"), rel=0.05)


def test_each_tag_has_its_teacher(sqlite_client: Client, server: Serving, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path, n=6, schedule=FORWARD)
    teachers = {"sum": {"at": server.url}, "product": str(tiny_folder(tmp_path / "other", seed=2)), "default": "self"}
    run(make_config(curriculum, student, tmp_path / "out", teachers=teachers, batch_size=4), sqlite_client)
    (made,) = sqlite_client.runs(curriculum.curriculum_id)
    assert made.config["teachers"]["sum"] == {"at": server.url, "model": None}
    assert server.n_written > 0  # every problem of this world is a sum
    config = make_config(curriculum, student, tmp_path / "out", teachers=teachers)
    found = Teachers(config, sqlite_client.profile(curriculum.profile_id), load_tokenizer(student))
    one = {"problem_id": 1, "prompt": "1 + 1", "answer": "2", "grader": "numeric", "solution": None}
    names = [
        found.of(BatchProblem(**one, tags=tags)).at.at for tags in (["sum"], ["hard", "product", "sum"], ["hard"], [])
    ]
    assert names == [server.url, teachers["product"], "self", "self"]


def test_a_teacher_that_cannot_teach_ends_the_run_before_a_model_is_loaded(
    sqlite_client: Client, server: Serving, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behaviour 26."""
    monkeypatch.setattr("worker.distill.model.load_model", lambda *_: pytest.fail("a model was loaded"))
    curriculum = make_curriculum(sqlite_client, tmp_path, n=6)
    with pytest.raises(ModelRefused, match="--max-logprobs 30"):
        run(make_config(curriculum, student, tmp_path / "out", **settings(server, teacher_top_k=30)), sqlite_client)
    assert list(sqlite_client.runs()) == []


def test_a_teacher_that_fails_later_ends_the_run_where_it_can_go_on(
    sqlite_client: Client, server: Serving, student: Path, tmp_path: Path
) -> None:
    def alter(answer: dict[str, Any]) -> dict[str, Any]:
        return {"choices": []} if server.n_scored > 2 + 4 else answer  # after the preflight and the first step

    server.alter = alter
    curriculum = make_curriculum(sqlite_client, tmp_path, n=12, schedule=[{"stage": "reverse_kl", "steps": 3}])
    config = make_config(curriculum, student, tmp_path / "out", **settings(server, batch_size=4, save_every=10))
    with pytest.raises(TeacherSilent, match=r"could not score texts.*sent no completion"):
        run(config, sqlite_client)
    server.alter = lambda answer: answer
    assert run(config, sqlite_client)["resumed_at"] == 1


def test_stored_targets_survive_what_a_kill_leaves(tmp_path: Path) -> None:
    target = Target(np.array([[3, -1], [4, 5], [2, 6]], np.int32), np.log(np.full((3, 2), 0.25)).astype(np.float32))
    asked: list[int] = []

    def score(examples: Any) -> list[Target]:
        asked.append(len(examples))
        return [target] * len(examples)

    store = Targets(tmp_path, "t", 1)
    assert store.of(EXAMPLES[:1], score)[1] == 1
    (file,) = tmp_path.rglob("*.npz")
    for damage in (file.read_bytes()[:40], b"", b"\0" * 300):
        file.write_bytes(damage)
        file.with_name(f".{file.name}.1.partial").write_bytes(damage)
        (found,), n_asked = store.of(EXAMPLES[:1], score)
        assert n_asked == 1
    (found,), n_asked = store.of(EXAMPLES[:1], score)
    assert n_asked == 0
    assert found.ids_A_K.tolist() == target.ids_A_K.tolist()
    np.testing.assert_allclose(np.load(file)["tail"], [0.75, 0.5, 0.5])
    assert Targets(tmp_path, "t", 2).of(EXAMPLES[:1], score)[1] == 1
    assert Targets(tmp_path, "other", 1).of(EXAMPLES[:1], score)[1] == 1
    assert sum(asked) == 6


def test_processes_may_share_a_folder_of_targets(tmp_path: Path) -> None:
    target = Target(np.full((3, 2), 1, np.int32), np.full((3, 2), -3, np.float32))
    examples = [Example(n, [1], [n + 1], [7, 8, 9], 1.0) for n in range(20)]
    asked: list[int] = []

    def fill() -> None:
        asked.append(Targets(tmp_path, "t", 1).of(examples, lambda missing: [target] * len(missing))[1])

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fill()
    assert len(asked) == 5
    assert asked[-1] == 0


def test_other_weights_under_the_same_name_are_noticed(tmp_path: Path) -> None:
    probe = Target(np.array([[3], [4]], np.int32), np.array([[-0.5], [-9.0]], np.float32))
    store = Targets(tmp_path, "t", 1)
    store.check_probe(probe)
    store.check_probe(Target(probe.ids_A_K, np.array([[-0.6], [-14.0]], np.float32)))
    with pytest.raises(ModelRefused, match="serves other weights under the same name"):
        store.check_probe(Target(probe.ids_A_K, np.array([[-1.5], [-9.0]], np.float32)))
