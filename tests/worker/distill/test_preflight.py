"""What is found out of a served teacher before a model is loaded, and in which words."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.distill.serving import Serving, serving
from tests.worker.distill.tiny import tiny_folder
from worker.distill.errors import DistillError, ModelRefused, TeacherSilent
from worker.distill.model import load_tokenizer
from worker.distill.teachers.addresses import TeacherAt
from worker.distill.teachers.preflight import Found, preflight
from worker.distill.teachers.served import ServedModel


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tiny_folder(tmp_path_factory.mktemp("served") / "teacher", seed=1)) as running:
        yield running


@pytest.fixture(autouse=True)
def healed(server: Serving) -> Iterator[None]:
    before = server.alter, server.max_logprobs, server.key
    yield
    server.alter, server.max_logprobs, server.key = before


def look(server: Serving, student: Path, top_k: int = 20, within_s: float = 60.0, **at: Any) -> Found:
    tokenizer = load_tokenizer(student)
    source = ServedModel(TeacherAt(at=server.url, **at), len(tokenizer), 4, 60.0)
    return preflight(source, tokenizer, top_k, within_s)


def test_a_good_teacher_is_named_and_probed(server: Serving, student: Path) -> None:
    found = look(server, student)
    assert (found.model, found.max_tokens, found.n_listed) == ("teacher", 1024, 20)
    assert found.probe.ids_A_K[:, 0].tolist() == found.probe_ids[1:]


def first(answer: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"choices": [{**answer["choices"][0], **changes}]}


def places(answer: dict[str, Any]) -> list[Any]:
    return list(answer["choices"][0].get("prompt_logprobs") or [])


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "no log-probabilities": (lambda a: first(a, prompt_logprobs=None), "no prompt_logprobs.*vllm serve"),
    "no token ids": (lambda a: first(a, prompt_token_ids=None), "return_token_ids.*vLLM 0.10.2"),
    "other ids": (
        lambda a: first(a, prompt_token_ids=[1, *a["choices"][0]["prompt_token_ids"]]),
        "another vocabulary than the student.*part at place 0",
    ),
    "one place off": (
        lambda a: first(a, prompt_logprobs=[None, *places(a)[2:], places(a)[1]]),
        "does not list token .* in its own place",
    ),
    "cut short": (lambda a: first(a, prompt_logprobs=places(a)[:-1]), "log-probabilities of .* tokens for a prompt of"),
    "too few": (
        lambda a: first(a, prompt_logprobs=[p and dict(list(p.items())[:5]) for p in places(a)]),
        "lists only 5 tokens.*--max-logprobs 20",
    ),
    "logits": (
        lambda a: first(a, prompt_logprobs=[p and {t: {"logprob": 3.0} for t in p} for p in places(a)]),
        "add up to .*raw_logprobs",
    ),
    "no completion": (lambda _: {"object": "error"}, "sent no completion"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_teacher_that_cannot_tell_is_refused_with_what_to_change(server: Serving, student: Path, fault: str) -> None:
    server.alter, words = FAULTS[fault]
    with pytest.raises(DistillError, match=f"(?s){words}"):
        look(server, student)


def test_a_teacher_of_other_tokens_is_refused(server: Serving, student: Path, tmp_path: Path) -> None:
    other = load_tokenizer(student)
    other.add_tokens(["67 = 12412"])
    other.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((student / "config.json").read_bytes())
    with pytest.raises(ModelRefused, match="another vocabulary than the student: of a probe the two make"):
        look(server, tmp_path)


def test_limits_names_and_keys_are_explained(server: Serving, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelRefused, match="--max-logprobs 40, or lower --set teacher_top_k"):
        look(server, student, top_k=40)
    with pytest.raises(ModelRefused, match="no model 'big': choose by --set teacher_model=NAME among teacher"):
        look(server, student, model="big")
    server.key = "secret"
    with pytest.raises(ModelRefused, match="environment variable TEACHER_KEY"):
        look(server, student, key_env="TEACHER_KEY")
    monkeypatch.setenv("TEACHER_KEY", "secret")
    assert look(server, student, key_env="TEACHER_KEY").model == "teacher"


def test_a_teacher_that_is_not_there_or_hangs_is_reported_in_time(server: Serving, student: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = Serving(server.folder, url=f"http://127.0.0.1:{probe.getsockname()[1]}/v1")
        with pytest.raises(TeacherSilent, match=r"is the server running.*mend the URL"):
            look(nowhere, student, within_s=3.0)
    server.stuck = threading.Event()
    try:
        with pytest.raises(TeacherSilent, match="answer"):
            look(server, student, within_s=0.5)
    finally:
        server.stuck.set()
        server.stuck = None
