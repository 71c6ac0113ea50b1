"""The learning laboratory's pure parts, and one arm end to end on models of a few kilobytes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from app.flow.batches.drawing import REST, Memory, draw
from app.flow.batches.law import Law
from app.flow.curricula.rule import PRESETS
from benchmarks.known import Known
from benchmarks.learning import models, trial
from benchmarks.learning.arms import ARMS
from benchmarks.learning.mixes import EASY, HARD, SCARCE, choose, thirds
from benchmarks.learning.models import Recipe, pass_rates, right_answer
from benchmarks.learning.results import Log, digest, interval, missing, numbers, summary, tokens_to
from benchmarks.learning.settings import Settings
from benchmarks.learning.skills import END, SKILLS, WIDTH, Problem, decode, encode, is_right, make_problem
from benchmarks.learning.tokens import affordable, size, stage_at
from benchmarks.learning.world import World, n_right, n_tokens, write
from paced.wire import Preset
from worker.distill.data import Example

TINY = Recipe(width=16, n_layers=1, n_steps=2, lengths=(1.0, 1.0), batch_size=4)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("skill", "answer"),
    [("s", "3761"), ("r", "5943"), ("x", "3459"), ("c", "3499"), ("p", "1545"), ("m", "6942"), ("t", "3495")],
)
def test_each_skill_has_its_one_right_answer(skill: str, answer: str) -> None:
    problem = Problem(skill, (3, 4, 9, 5))
    assert problem.answer == answer
    assert is_right(problem, [*encode(answer), END])
    assert not is_right(problem, encode(answer))  # cut off before it ended
    assert not is_right(problem, [*encode(answer[:-1] + "7"), END])


def test_prompts_have_one_width_and_are_read_back() -> None:
    prompts = [make_problem(skill, length, rng()).prompt for skill in SKILLS for length in range(1, WIDTH + 1)]
    assert {len(prompt) for prompt in prompts} == {WIDTH + 2}
    assert all(decode(encode(prompt)) == prompt for prompt in prompts)


def test_a_pool_is_made_of_three_thirds() -> None:
    student = np.array([0.95, 1.0, 0.5, 0.2, 0.0, 0.05, 0.0, 0.95])
    teacher = np.array([1.0, 0.9, 0.9, 0.7, 0.1, 0.9, 0.4, 0.2])
    hard, easy = thirds(student, teacher, HARD), thirds(student, teacher, EASY)
    assert [third.tolist() for third in hard] == [[0, 1], [2, 3], [4, 6]]
    assert [third.tolist() for third in easy] == [[0, 1], [2, 3], [5]]
    assert [len(set(third.tolist())) for third in choose(hard, (2, 1, 2), rng())] == [2, 1, 2]
    assert (HARD.sizes(900), SCARCE.sizes(900)) == ((300, 300, 300), (405, 90, 405))
    with pytest.raises(ValueError, match="1 candidates are hopeless, 2 are needed"):
        choose(easy, (2, 2, 2), rng())


def example(n_answer: int, weight: float = 1.0) -> Example:
    return Example(0, [1, 2], [1, 2], [3] * n_answer, weight)


def test_tokens_are_those_that_an_update_reads() -> None:
    drawn = [example(3), example(8, weight=0.0), example(4, weight=0.5), example(9)]
    assert [size(one) for one in affordable(drawn, 100)] == [5, 6, 11]
    assert [size(one) for one in affordable(drawn, 12)] == [5, 6]  # the third does not fit
    assert affordable(drawn, 4) == []


def test_stages_share_the_budget() -> None:
    stages = (("forward_kl", 0.5), ("reverse_kl", 0.5))
    assert [stage_at(stages, share) for share in (0.0, 0.49, 0.5, 0.99, 1.0)] == [
        *["forward_kl"] * 2,
        *["reverse_kl"] * 3,
    ]


def result(arm: str, seed: int, end: float, start: float = 0.2) -> dict[str, object]:
    rates = ("all", "mastered", "between", "hopeless", "kept")
    points = [{"tokens": 50 * i, **dict.fromkeys(rates, start + i / 2 * (end - start))} for i in range(3)]
    return {"arm": arm, "digest": arm[0], "seed": seed, "curve": points, "spent": {"optimiser": 100}, "n_steps": 2}


DIGESTS = {"uniform": "u", "paper": "p"}


def test_results_resume_after_a_kill(tmp_path) -> None:  # type: ignore[no-untyped-def]
    log = Log(tmp_path, {"budget": 1})
    log.append(result("uniform", 0, 0.4))
    with log.path.open("a") as file:
        file.write(json.dumps(result("paper", 0, 0.5))[:40])  # killed while it wrote
    assert missing(log.read(DIGESTS), ("uniform", "paper"), range(2)) == [(0, "paper"), (1, "uniform"), (1, "paper")]
    log.append(result("paper", 0, 0.5))
    assert [(one["arm"], one["seed"]) for one in log.read(DIGESTS)] == [("uniform", 0), ("paper", 0)]
    assert Log(tmp_path, {"budget": 2}).read(DIGESTS) == []
    assert [one["arm"] for one in log.read({**DIGESTS, "paper": "changed since"})] == ["uniform"]
    assert digest(ARMS["default"]) != digest(ARMS["default_gamma_1"])


def test_summaries_pair_seeds_with_uniform() -> None:
    ends = {"uniform": (0.4, 0.6), "paper": (0.5, 0.7)}
    rows = {row["arm"]: row for row in summary([result(arm, i, e) for arm in ends for i, e in enumerate(ends[arm])])}
    assert rows["uniform"]["all_over_uniform"] == [0.0, 0.0]
    assert rows["paper"]["all_over_uniform"] == [0.1, 0.0]  # the spread between seeds is not the spread of the gain
    assert rows["paper"]["all"][0] == pytest.approx(0.6)
    assert interval(np.array([0.5, 0.7]))[1] == pytest.approx(12.706 * 0.1, rel=1e-3)  # t of one degree of freedom
    assert numbers(result("paper", 0, 0.5), None)["all_gain"] == pytest.approx(0.3)
    assert tokens_to(result("paper", 0, 0.6)["curve"], 0.3) == pytest.approx(25)  # type: ignore[arg-type]
    assert tokens_to(result("paper", 0, 0.6)["curve"], 0.9) == 100  # type: ignore[arg-type]


def test_what_is_known_moves_the_draw() -> None:
    known, rule = Known(np.array([0] * 50 + [1] * 50), 2), PRESETS[Preset.DEFAULT]
    rows = np.arange(100)
    known.count(rows, np.ones(100, np.bool_), np.array([8.0] * 50 + [4.0] * 50), 8, 0)
    with Law(known.pool, rule, 0.0, trial.NOW) as law:
        first = draw(law, {REST: None}, 20, 0, 0, Memory()).ordinals
    assert (first >= 50).sum() >= 18
    for checkpoint in (1, 2, 3):  # the second skill is learnt, on problems of which a quarter is measured
        due, is_audit = known.due(25, rng())
        assert 19 <= len(set(due.tolist())) == len(due) <= 25
        assert is_audit.sum() == 6
        known.count(due, is_audit, np.full(len(due), 8.0), 8, checkpoint)
    with Law(known.pool, rule, 0.0, trial.NOW) as law:
        rates = law.terms(rows).pass_rate
    assert rates[50:].mean() > 0.6


@pytest.fixture(scope="module")
def tiny_world() -> tuple[Settings, World, object, object]:
    settings = Settings(
        teacher=TINY, student=TINY, budget=1_500, batch_size=8, n_checkpoints=3, n_answers=4, learning_rate=1e-3
    )
    student, teacher = models.train(TINY).eval(), models.train(replace(TINY, seed=5)).eval()
    pool = [make_problem("srxcp"[i % 5], 2 + i % 3, np.random.default_rng(i)) for i in range(30)]
    answers = write(student, pool, 4)
    passed = np.arange(30) % 5.0  # as if some were in reach: a student of two steps is right on none
    world = World(
        pool=pool,
        held_out=[pool[:4], pool[4:8], pool[8:12]],
        kept=[make_problem("t", 2, rng())],
        texts=[text for (text,) in write(teacher, pool, 1)],
        n_passed=passed,
        n_tokens_measured=n_tokens(answers),
        start={},
    )
    return settings, world, student, teacher


def test_exact_pass_rates_are_what_sampling_comes_to(tiny_world) -> None:  # type: ignore[no-untyped-def]
    _, _, student, _ = tiny_world
    problems = [Problem("t", (digit,)) for digit in range(4)]
    torch.manual_seed(0)
    n = 4_000
    sampled = n_right(problems, write(student, problems, n)).mean() / n
    exact = pass_rates(student, problems).mean()
    assert 0.0 < exact < 0.2
    assert sampled == pytest.approx(exact, abs=4 * (exact / n / len(problems)) ** 0.5)


@pytest.mark.parametrize("arm", list(ARMS))
def test_arms_are_equal_in_tokens_and_in_their_start(arm: str, tiny_world) -> None:  # type: ignore[no-untyped-def]
    settings, world, student, teacher = tiny_world
    before = pass_rates(student, world.pool)
    found = trial.run_trial(settings, ARMS[arm], 0, world, student, teacher)
    longest = WIDTH + 2 + WIDTH + 2
    assert settings.budget - longest < found["spent"]["optimiser"] <= settings.budget
    assert found["curve"][0] == {**found["curve"][0], "tokens": 0}
    assert found["curve"][-1]["tokens"] == found["spent"]["optimiser"]
    assert found["curve"][0] != {**found["curve"][-1], "tokens": 0}
    assert np.array_equal(pass_rates(student, world.pool), before)  # the arms train copies
    measured = found["spent"]["measuring"]
    if not ARMS[arm].is_measured:
        assert measured == 0
    elif not ARMS[arm].is_following:
        assert measured == world.n_tokens_measured
    else:
        assert measured > world.n_tokens_measured
    assert (found["spent"]["on_policy"] > 0) == any(name == "reverse_kl" for name, _ in ARMS[arm].stages)


def test_sequences_without_weight_are_replaced(tiny_world) -> None:  # type: ignore[no-untyped-def]
    settings, world, student, teacher = tiny_world
    begun = trial.begin(settings, ARMS["paper"], 0, world, student, teacher)
    found = [trial.draw_weights(begun) for _ in range(40)]
    assert {len(weights) for weights, _ in found} == {settings.batch_size}
    assert all(weight > 0 and 0 < world.n_passed[row] < 4 for weights, _ in found for row, weight in weights)
    # the sum of the weights over all that were drawn keeps its mean of 1 over the pool
    total = sum(weight for weights, _ in found for _, weight in weights) / sum(n for _, n in found)
    assert total == pytest.approx(1.0, abs=0.1)
    hopeless = trial.begin(settings, ARMS["hard_filter"], 0, replace(world, n_passed=np.zeros(30)), student, teacher)
    with pytest.raises(RuntimeError, match="nothing can be drawn"):
        trial.draw_weights(hopeless)


def test_a_run_is_the_same_again(tiny_world) -> None:  # type: ignore[no-untyped-def]
    settings, world, student, teacher = tiny_world
    both = [trial.run_trial(settings, ARMS["default_reverse"], 3, world, student, teacher) for _ in range(2)]
    assert both[0] == both[1]


def test_right_answers_end() -> None:
    assert right_answer(Problem("t", (1, 2))) == [1, 2, END]
