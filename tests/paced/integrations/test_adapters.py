"""Adapters of verl, OpenRLHF and NeMo-RL, each through the loader that its trainer uses, against a real service.

The trainers themselves need GPUs: what they call, and in which order, is written down in `recorded`.
"""

import asyncio
import itertools
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import torch

from app.main import create_app
from app.settings import Settings
from paced import Client, wire
from paced.integrations import nemo_rl, openrlhf, verl
from paced.integrations.graded import Graded
from paced.integrations.rows import Rows, Ticket
from paced.testing import InProcess, in_process
from tests.app.world import build, measure
from tests.paced.integrations import recorded
from tests.service import ADMIN_KEY, TestClock

SIZE, N_ANSWERS, N_STEPS = 4, 2, 5
NUMBERS = itertools.count()
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata calls it


@pytest.fixture(scope="module")
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(scope="module")
def inside(clock: TestClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    settings = Settings(data=tmp_path_factory.mktemp("adapters") / "data", admin_key=ADMIN_KEY)
    with in_process(create_app(settings, clock)) as running:
        yield running


@pytest.fixture
def client(inside: InProcess) -> Iterator[Client]:
    with Client("http://service", ADMIN_KEY, retry_s=0.0, http_transport=inside) as made:
        yield made


@pytest.fixture
def curriculum(client: Client, tmp_path: Path) -> wire.Curriculum:
    """40 problems, of which the last half was always solved: its weight is all but nothing."""
    made = build(client, tmp_path, 40, suffix=f"-{next(NUMBERS)}", holdout_share=0.2)
    first = min(problem.problem_id for problem in client.problems(made.problem_set, limit=100))
    measure(client, made.student, lambda i: 4 if i - first < 20 else 8)
    return made


class Text:
    """What the adapters ask of a tokenizer: a chat's text, and a number for each of its letters."""

    def apply_chat_template(self, chat: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        assert add_generation_prompt
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in chat) + "<assistant>"

    def __call__(self, text: str, *, return_tensors: str, add_special_tokens: bool) -> dict[str, torch.Tensor]:
        assert (return_tensors, add_special_tokens) == ("pt", False)
        return {"input_ids": torch.tensor([[ord(letter) for letter in text]])}


def by_length(answer: str, reference: str) -> float:
    """A judge that passes every second answer of `answers_to`."""
    return float(answer.endswith("!"))


def log_of(client: Client, curriculum: wire.Curriculum) -> list[wire.Batch]:
    return list(client.batches(curriculum.curriculum_id, limit=100))


def verl_loader(client: Client, curriculum: wire.Curriculum) -> Any:
    config = {
        "train_files": [f"paced:{curriculum.name}/run"],
        "train_batch_size": SIZE,
        "shuffle": False,
        "paced": {"n_steps": N_STEPS},
    }
    return recorded.verl_loader(recorded.verl_dataset(verl.CurriculumDataset, config, Text(), client), SIZE)


def openrlhf_loader(client: Client, curriculum: wire.Curriculum) -> Any:
    args = {
        "data": {"prompt_dataset": f"paced:{curriculum.name}/run", "max_samples": SIZE * N_STEPS},
        "rollout": {"batch_size": SIZE, "n_samples_per_prompt": N_ANSWERS},
        "train": {"batch_size": SIZE * N_ANSWERS, "num_episodes": 1, "max_epochs": 1},
        "eval": {"dataset": None},
    }
    loader, evaluation, max_steps = openrlhf.prepare_datasets(recorded.openrlhf_strategy(args), Text(), client)
    assert (evaluation, max_steps) == (None, N_STEPS)
    return loader


def nemo_loader(client: Client, curriculum: wire.Curriculum) -> Any:
    return recorded.nemo_rl_loader(nemo_rl.Prompts(Rows(client, curriculum.name, "run", SIZE, N_STEPS), Text()), SIZE)


LOADERS = {"verl": verl_loader, "openrlhf": openrlhf_loader, "nemo_rl": nemo_loader}
Load = Callable[[Client, wire.Curriculum], Any]


def tickets(name: str, loaded: Iterator[Any]) -> Iterator[list[Ticket]]:
    """The tickets of each step."""
    while True:
        if name == "openrlhf":
            labels = [label for item in itertools.islice(loaded, SIZE) for label in item[2]]
        else:
            part = {"verl": "extra_info", "nemo_rl": "extra_env_info"}[name]
            labels = [datum[part]["paced"] for datum in next(loaded, [])]
        if not labels:
            return
        yield [Ticket.read(label) for label in labels]


@pytest.mark.parametrize("name", LOADERS)
def test_prompts_follow_the_weights(name: str, client: Client, curriculum: wire.Curriculum) -> None:
    steps = list(tickets(name, iter(LOADERS[name](client, curriculum))))
    log = log_of(client, curriculum)
    assert len(steps) == len(log) == N_STEPS
    estimates = {e.problem_id: e for e in client.estimates(curriculum.measurement_id, limit=100)}
    for step, batch in zip(steps, log, strict=True):
        assert [ticket.problem_id for ticket in step] == batch.problem_id
        assert {ticket.batch_id for ticket in step} == {batch.batch_id}
    drawn = [estimates[ticket.problem_id] for step in steps for ticket in step]
    assert not any(estimate.is_holdout for estimate in drawn)
    n_half = sum(estimate.n_passed == 4 for estimate in drawn)
    assert n_half > 0.8 * len(drawn), "half of the problems, and nearly all of the weight"


@pytest.mark.parametrize("name", LOADERS)
def test_a_resumed_loader_draws_no_step_twice(name: str, client: Client, curriculum: wire.Curriculum) -> None:
    loader = LOADERS[name](client, curriculum)
    steps = tickets(name, iter(loader))
    before = [next(steps), next(steps)]
    state = loader.state_dict()
    lost = next(steps)  # drawn after the state was saved, and lost with the weights
    again = LOADERS[name](client, curriculum)
    again.load_state_dict(state)
    after = list(tickets(name, iter(again)))
    assert after[0] == lost
    assert len(before + after) == N_STEPS
    log = log_of(client, curriculum)
    assert [batch.batch_id for batch in log] == [step[0].batch_id for step in before + after]


def expect(client: Client, curriculum: wire.Curriculum, step: list[Ticket], before: dict[int, Any]) -> None:
    """Each problem of the step got one pass and one fail from the trainer, its batch is done, and p has moved."""
    assert client.batch(step[0].batch_id).state == "acknowledged"
    for ticket in step:
        now, was = client.estimate(curriculum.measurement_id, ticket.problem_id), before[ticket.problem_id]
        assert (now.n_counted - was.n_counted, now.n_passed - was.n_passed) == (N_ANSWERS, 1)
        assert now.observations[0].source == "trainer"
        assert now.verdicts["fail"] > was.verdicts.get("fail", 0)
        if was.n_passed == was.n_counted:
            assert now.pass_rate < was.pass_rate


def all_estimates(client: Client, curriculum: wire.Curriculum, step: list[Ticket]) -> dict[int, Any]:
    return {ticket.problem_id: client.estimate(curriculum.measurement_id, ticket.problem_id) for ticket in step}


@pytest.mark.parametrize("with_acc", [True, False])
def test_verl_reports_a_step_that_is_done(client: Client, curriculum: wire.Curriculum, with_acc: bool) -> None:
    loader = verl_loader(client, curriculum)
    items = next(iter(loader))
    step = next(tickets("verl", iter([items])))
    before = all_estimates(client, curriculum, step)
    repeated = [item["extra_info"] for item in items for _ in range(N_ANSWERS)]
    right = torch.tensor([1.0, 0.0] * SIZE)
    scores = torch.zeros(len(repeated), 6)
    scores[:, 3] = 1 - right if with_acc else right  # shaped ones, of which `acc` says what is right
    batch = SimpleNamespace(
        batch={"token_level_scores": scores},
        non_tensor_batch={"extra_info": repeated, **({"acc": right.tolist()} if with_acc else {})},
    )
    loader.dataset.on_batch_end(batch=batch)
    expect(client, curriculum, step, before)
    loader.dataset.on_batch_end(batch=batch)  # a step done again after a crash counts once
    expect(client, curriculum, step, before)


def test_verl_rewards_are_counted_where_steps_are_not(client: Client, curriculum: wire.Curriculum) -> None:
    items = next(iter(verl_loader(client, curriculum)))
    step = next(tickets("verl", iter([items])))
    before = all_estimates(client, curriculum, step)
    compute_score = verl.scored(Graded(client, curriculum.student, SIZE * N_ANSWERS), by_length)
    for item in items:
        for answer, reward in (("yes!", 1.0), ("no", 0.0)):
            truth = item["reward_model"]["ground_truth"]
            assert compute_score("paced", answer, truth, item["extra_info"], num_turns=1) == reward
    for extra in ({"index": 0}, None):  # a row for validation is judged, and is nothing of the batch
        assert compute_score("other", "yes!", "", extra) == 1.0
    expect(client, curriculum, step, before)


def test_verl_refuses_what_would_break_the_order(client: Client, curriculum: wire.Curriculum) -> None:
    with pytest.raises(ValueError, match="shuffle=False"):
        verl.CurriculumDataset("paced:main/run", Text(), {"train_batch_size": 4, "shuffle": True}, client=client)
    with pytest.raises(ValueError, match="CURRICULUM/RUN"):
        verl.CurriculumDataset("paced:main", Text(), {"train_batch_size": 4}, client=client)


@pytest.mark.parametrize("way", ["file", "server"])
def test_openrlhf_rewards_become_observations(way: str, client: Client, curriculum: wire.Curriculum) -> None:
    """Every answer is a call of its own, from several engines at once."""
    items = list(itertools.islice(openrlhf_loader(client, curriculum), SIZE))
    step = next(tickets("openrlhf", iter(items)))
    before = all_estimates(client, curriculum, step)
    reward_func = openrlhf.rewarded(Graded(client, curriculum.student, SIZE * N_ANSWERS), by_length)
    calls = [
        (prompts[0], f"{prompts[0]}{answer}", labels[0]) for _, prompts, labels, _ in items for answer in ("yes!", "no")
    ]
    assert calls[0][0].startswith("<user>Compute ")
    server = openrlhf.server(reward_func, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    async def ask() -> list[Any]:
        if way == "file":
            each = [asyncio.to_thread(reward_func, [query], [prompt], [label]) for prompt, query, label in calls]
            return await asyncio.gather(*each)
        async with httpx2.AsyncClient(trust_env=False) as http:
            url = f"http://127.0.0.1:{server.server_port}"
            bodies = [{"query": [query], "prompts": [prompt], "labels": [label]} for prompt, query, label in calls]
            answers = await asyncio.gather(*(http.post(url, json=body) for body in bodies))
            assert (await http.post(url, json={"query": ["x"], "prompts": ["x"], "labels": ["7"]})).status_code == 422
        return [answer.json() for answer in answers]

    rewards = [float(value) for one in asyncio.run(ask()) for value in one["rewards"]]
    server.shutdown()
    server.server_close()
    assert rewards == [1.0, 0.0] * SIZE
    expect(client, curriculum, step, before)


class Judging:
    """An environment of one turn."""

    def step(self, message_log_batch: list[Any], metadata: list[Any]) -> recorded.EnvironmentReturn:
        assert len(message_log_batch) == len(metadata)
        answers = [log[-1]["content"] for log in message_log_batch]
        rewards = torch.tensor([by_length(answer, "") for answer in answers])
        n = len(answers)
        return recorded.EnvironmentReturn([], [None] * n, [None] * n, rewards, torch.ones(n))


def test_nemo_rl_episodes_become_observations(client: Client, curriculum: wire.Curriculum) -> None:
    class Environment(nemo_rl.Reporting, Judging):
        graded = Graded(client, curriculum.student, SIZE * N_ANSWERS)

    items = next(iter(nemo_loader(client, curriculum)))
    step = next(tickets("nemo_rl", iter([items])))
    before = all_estimates(client, curriculum, step)
    for item, loss_weight in zip(items, client.batch(step[0].batch_id).loss_weight, strict=True):
        (message,) = item["message_log"]
        assert "".join(map(chr, message["token_ids"])) == message["content"]
        assert (item["length"], item["loss_multiplier"]) == (len(message["token_ids"]), loss_weight)
    logs = [[*item["message_log"], {"content": text}] for item in items for text in ("yes!", "no")]
    Environment().step(logs, [item["extra_env_info"] for item in items for _ in range(N_ANSWERS)])
    expect(client, curriculum, step, before)


def test_a_prompt_that_is_too_long_has_no_loss(client: Client, curriculum: wire.Curriculum) -> None:
    dataset = nemo_rl.Prompts(Rows(client, curriculum.name, "run", SIZE, N_STEPS), Text(), max_tokens=8)
    assert (dataset[0]["length"], dataset[0]["loss_multiplier"]) == (8, 0.0)


def test_episodes_that_go_on_are_not_counted(client: Client, curriculum: wire.Curriculum) -> None:
    rows = Rows(client, curriculum.name, "run", SIZE, N_STEPS)
    labels = [rows[i].ticket.label() for i in range(SIZE)]
    graded = Graded(client, curriculum.student, SIZE)
    nemo_rl.report(graded, labels, torch.ones(SIZE), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    nemo_rl.report(graded, [None], torch.ones(1), torch.ones(1))  # of a set for validation
    assert client.batch(rows[0].ticket.batch_id).state == "open"
    nemo_rl.report(graded, labels[3:], torch.ones(1), torch.ones(1))
    assert client.batch(rows[0].ticket.batch_id).state == "acknowledged"


def test_a_batch_that_came_late_is_drawn_anew(
    client: Client, curriculum: wire.Curriculum, clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    rows = Rows(client, curriculum.name, "run", SIZE, N_STEPS)
    late = [rows[i].ticket for i in range(SIZE)]
    clock.advance(curriculum.batch_ttl_s + 1)
    graded = Graded(client, curriculum.student, SIZE)
    for ticket in late:
        graded.add(ticket, 1.0)
    assert "came too late to count" in caplog.text
    again = Rows(client, curriculum.name, "run", SIZE, N_STEPS)
    assert again[0].ticket.batch_id != late[0].batch_id


def test_a_short_batch_is_filled_up(client: Client, curriculum: wire.Curriculum) -> None:
    n_trained = sum(not e.is_holdout for e in client.estimates(curriculum.measurement_id, limit=100))
    client.draw_batch(curriculum.curriculum_id, n_trained - 3)
    rows = Rows(client, curriculum.name, "run", SIZE, 1)
    assert [rows[i].ticket == rows[0].ticket for i in range(SIZE)] == [True, False, False, True]
    with pytest.raises(IndexError):
        rows[SIZE]


def test_an_endless_schedule_needs_a_number_of_steps(client: Client, curriculum: wire.Curriculum) -> None:
    with pytest.raises(ValueError, match="has no end"):
        Rows(client, curriculum.name, "run", SIZE)


def test_a_counter_in_another_process_counts_anew(client: Client, curriculum: wire.Curriculum) -> None:
    """Environments and reward functions travel to the processes that run them."""
    rows = Rows(client, curriculum.name, "run", SIZE, N_STEPS)
    ticket = rows[0].ticket
    graded = Graded(Client("http://127.0.0.1:1", "key"), curriculum.student, SIZE, passes=0.5)
    graded.add(ticket, 1.0)
    copy = pickle.loads(pickle.dumps(graded))
    assert (copy._counts, copy._passes, copy._n_answers) == ({}, 0.5, SIZE)
