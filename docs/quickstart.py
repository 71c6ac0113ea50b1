# %% [markdown]
# # PACED in one file
#
# The whole loop in this process, in a few seconds: no port, no model, no GPU. Open it as a notebook (the cells are those of
# Jupytext, VS Code and Spyder), or run `python docs/quickstart.py`. The student is one number, its skill: it solves a
# problem with probability σ(skill − difficulty), and a batch teaches it the more, the more it holds of what it solves
# sometimes. Put your model where `answer` and `train` are.

# %% A service inside this process, and a client of it
import json
import math
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path

from app.main import create_app
from app.settings import Settings
from app.telemetry import configure_logs
from paced import Client, wire
from paced.testing import in_process

stack = ExitStack()
folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
configure_logs("error", as_json=False)
settings = Settings(data=folder / "data", admin_key="a-key-of-this-notebook")
service = stack.enter_context(in_process(create_app(settings)))
client = stack.enter_context(Client("http://service", "a-key-of-this-notebook", http_transport=service))

# %% Problems: 300 products, of 2 × 3 up to 99 × 99
dice = random.Random(0)
pairs = dice.sample([(a, b) for a in range(2, 100) for b in range(3, 100)], 300)
rows = [{"question": f"Compute {a} * {b}.", "answer": str(a * b), "tags": ["product"]} for a, b in pairs]
file = folder / "problems.jsonl"
file.write_text("".join(json.dumps(row) + "\n" for row in rows))
client.create_problem_set(wire.ProblemSetCreate(name="products", grader=wire.GraderName.NUMERIC))
report = client.import_problems("products", file)
print(f"{report.n_imported} problems imported")

# %% A student with its first checkpoint, a sampling profile, a curriculum with a fifth of the problems held out
client.create_student(wire.StudentCreate(name="student"))
client.register_checkpoint("student", wire.CheckpointCreate(uri="skill:5.5"))
profile = client.create_profile(wire.ProfileCreate(temperature=0.6, max_tokens=16))
curriculum = client.create_curriculum(
    wire.CurriculumCreate(
        name="first", student="student", problem_set="products", profile_id=profile.profile_id, holdout_share=0.2
    )
)


# %% The student: what a rollout worker asks of it
def difficulty(prompt: str) -> float:
    a, b = map(int, prompt.removeprefix("Compute ").removesuffix(".").split(" * "))
    return math.log(a * b)


def chance(prompt: str, skill: float) -> float:
    return 1 / (1 + math.exp(difficulty(prompt) - skill))


def answer(problem: wire.LeasedProblem, skill: float) -> wire.Rollout:
    is_right = dice.random() < chance(str(problem.prompt), skill)
    return wire.Rollout(
        text=problem.answer if is_right else "?",
        verdict=wire.Verdict.PASS if is_right else wire.Verdict.FAIL,
        n_tokens=2,
    )


# %% Measure: lease what is due, answer it, report
def measure(skill: float) -> None:
    while (lease := client.claim_lease(wire.LeaseClaim(student="student", worker="here", max_problems=64))).problems:
        groups = [
            wire.RolloutGroup(
                problem_id=problem.problem_id,
                checkpoint_index=lease.checkpoint.index,
                rollouts=[answer(problem, skill) for _ in range(problem.n_rollouts)],
            )
            for problem in lease.problems
        ]
        client.report_rollouts(lease.lease_id, wire.LeaseReport(token=lease.token, groups=groups))


skill = 5.5
measure(skill)
frontier = client.frontier(curriculum.measurement_id)
print("problems by pass rate, 0 to 1:", frontier.counts)

# %% Draw: batches follow the pass rates; each knows why it drew what it drew
batch = client.draw_batch(curriculum.curriculum_id, 8)
for problem, p in zip(batch.problems, batch.pass_rate, strict=True):
    print(f"  p = {p:.2f}  {problem.prompt}")
first = client.explain(batch.batch_id).items[0]
print(f"the first: chance {first.draw_probability:.4f}, of a uniform draw {first.uniform_probability:.4f}")
client.acknowledge(batch.batch_id)


# %% Train: a step for each batch, then a new checkpoint, which is measured again
def train(batch: wire.Batch, skill: float) -> float:
    rates = [chance(str(problem.prompt), skill) for problem in batch.problems]
    return skill + 0.15 * sum(4 * p * (1 - p) for p in rates) / len(rates)


run = client.create_run(wire.RunCreate(curriculum_id=curriculum.curriculum_id, name="notebook"))
for checkpoint in range(1, 4):
    for step in range(8):
        batch = client.draw_batch(
            curriculum.curriculum_id, 16, run_id=run.run_id, key=f"{run.run_id}:{checkpoint}.{step}"
        )
        skill = train(batch, skill)
        client.acknowledge(batch.batch_id)
    client.register_checkpoint("student", wire.CheckpointCreate(uri=f"skill:{skill:.2f}", run_id=run.run_id))
    measure(skill)

# %% What it gained, on problems that it was never trained on
for point in client.holdout(curriculum.measurement_id):
    print(f"checkpoint {point.checkpoint_index}: {point.pass_rate:.3f} ± {point.se:.3f}")

# %% Stop the service
stack.close()
