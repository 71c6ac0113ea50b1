"""A whole optimiser step: its denominator, micro-batches, two processes, a compiled step."""

import socket
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from paced.losses import KLSettings, Projection, TeacherLogits, distillation_loss, step_denominator
from tests.paced.dense import assert_close

N_VOCABULARY, WIDTH, N_POSITIONS = 50, 12, 6
WEIGHTS = [0.25, 0.1094, 1.0, 1.5]
LENGTHS = torch.tensor([1, 3, 6, 4])
REDUCTIONS = ["seq_mean", "seq_sum", "token_mean"]


class Student(nn.Module):
    """Embeds tokens and returns hidden states; its head is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(N_VOCABULARY, WIDTH, dtype=torch.float64)
        self.layer = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.tanh(self.layer(self.embedding(tokens)))


@dataclass(frozen=True)
class Step:
    tokens: Tensor
    logits: Tensor
    mask: Tensor
    weights: Tensor

    @classmethod
    def make(cls, weights: list[float]) -> "Step":
        generator = torch.Generator().manual_seed(1)
        return cls(
            torch.randint(N_VOCABULARY, (4, N_POSITIONS), generator=generator),
            torch.randn(4, N_POSITIONS, N_VOCABULARY, generator=generator, dtype=torch.float64),
            torch.arange(N_POSITIONS) < LENGTHS[:, None],
            torch.tensor(weights, dtype=torch.float64),
        )

    def rows(self, rows: slice) -> "Step":
        return Step(self.tokens[rows], self.logits[rows], self.mask[rows], self.weights[rows])

    def denominator(self, reduction="seq_mean", **options) -> float:
        return step_denominator(self.weights, int(self.mask.sum()), reduction, **options)

    def loss(self, model: nn.Module, head: Tensor, denominator: float, reduction="seq_mean") -> Tensor:
        student, teacher = Projection(model(self.tokens), head), TeacherLogits(self.logits)
        loss, _ = distillation_loss(
            student,
            teacher,
            self.mask,
            self.weights,
            denominator=denominator,
            reduction=reduction,
            settings=KLSettings(chunk_size=3),
        )
        return loss


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters()]


def one_process(step: Step, reduction="seq_mean", **options) -> list[Tensor]:
    model = Student()
    step.loss(model, model.embedding.weight, step.denominator(reduction, **options), reduction).backward()
    return gradients(model)


# --- denominators -----------------------------------------------------------------------------------------------------


def test_denominators_by_hand():
    weights = torch.tensor([0.5, 0.25, 0.0])
    assert step_denominator(weights, 9) == 3
    assert step_denominator(weights, 9, set_mean=0.2) == pytest.approx(0.6)
    assert step_denominator(weights, 9, denominator="batch") == 0.75
    assert step_denominator(weights, 9, "seq_sum") == 3
    assert step_denominator(torch.full((3,), 0.5), 9, "token_mean") == 9
    assert step_denominator(torch.zeros(3), 9) == 0
    assert step_denominator(torch.zeros(0), 0) == 0


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ([1.0, 2.0], {"reduction": "token_mean"}, "weights differ under reduction 'token_mean'"),
        ([1.0, -2.0], {}, "finite and not negative"),
        ([1.0, torch.nan], {}, "finite and not negative"),
        ([1.0], {"denominator": "mean"}, "denominator 'mean' is not known"),
        ([1.0], {"reduction": "mean"}, "reduction 'mean' is not known"),
        ([1.0], {"set_mean": 0.0}, "set_mean is 0.0"),
    ],
)
def test_denominators_that_mean_nothing_are_refused(weights, options, message):
    with pytest.raises(ValueError, match=message):
        step_denominator(torch.tensor(weights), 5, **options)


# --- micro-batches, processes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_four_accumulated_micro_batches_equal_one_batch_of_four(reduction):
    step = Step.make([0.25] * 4 if reduction == "token_mean" else WEIGHTS)
    model, denominator = Student(), step.denominator(reduction)
    for i in range(4):
        step.rows(slice(i, i + 1)).loss(model, model.embedding.weight, denominator, reduction).backward()
    for ours, whole in zip(gradients(model), one_process(step, reduction), strict=True):
        assert_close(ours, whole, 1e-12)


def run_rank(rank: int, port: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    results = {}
    for name, weights, reduction, options in CASES:
        step = Step.make(weights).rows(slice(0, 1) if rank == 0 else slice(1, 4))  # of unequal number and length
        model = Student()
        parallel = nn.parallel.DistributedDataParallel(model)
        denominator = step.denominator(reduction, **options)
        step.loss(parallel, model.embedding.weight, denominator, reduction).backward()
        results[name] = gradients(model)
    added = step_denominator(torch.ones(1 + rank), 5, is_averaged=False)
    refusals = []
    for unequal in ([1.0], [2.0, 2.0]), ([1.0], [torch.nan, 1.0]):
        with pytest.raises(ValueError, match=r"weights (differ|must be finite)") as refused:
            step_denominator(torch.tensor(unequal[rank]), 5, "token_mean")
        refusals.append(str(refused.value))
    torch.save((results, added, refusals), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


CASES = [
    ("plain", WEIGHTS, "seq_mean", {}),
    ("doubled", [2 * w for w in WEIGHTS], "seq_mean", {}),
    ("batch", WEIGHTS, "seq_mean", {"denominator": "batch"}),
    ("seq_sum", WEIGHTS, "seq_sum", {}),
    ("token_mean", [0.25] * 4, "token_mean", {}),
]


def test_two_processes_that_average_gradients_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(run_rank, (port, str(tmp_path)), nprocs=2)
    (ours, added, refusals), (theirs, *others) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert [added, refusals] == others
    assert added == 3
    assert "differ" in refusals[0]
    assert "finite" in refusals[1]
    for name, weights, reduction, options in CASES:
        for a, b, whole in zip(
            ours[name], theirs[name], one_process(Step.make(weights), reduction, **options), strict=True
        ):
            assert torch.equal(a, b)
            assert_close(a, whole, 1e-12)
    for once, twice in zip(ours["plain"], ours["doubled"], strict=True):
        assert torch.equal(2 * once, twice)


def test_twice_the_weights_are_exactly_twice_the_gradient_in_one_process():
    once, twice = one_process(Step.make(WEIGHTS)), one_process(Step.make([2 * w for w in WEIGHTS]))
    assert all(torch.equal(2 * a, b) for a, b in zip(once, twice, strict=True))


# --- torch.compile ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_a_compiled_step_calls_the_loss_as_it_is():
    step, model = Step.make(WEIGHTS), Student()
    compiled = torch.compile(lambda step: 3 * step.loss(model, model.embedding.weight, 4.0))
    loss = compiled(step)
    loss.backward()
    for ours, whole in zip(gradients(model), one_process(step), strict=True):
        assert_close(ours, 3 * whole, 1e-12)
    n_compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    fewer = Step(step.tokens, step.logits, step.mask.logical_and(torch.arange(N_POSITIONS) > 0), step.weights)
    assert compiled(fewer) != loss
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == n_compiled  # another mask compiles nothing
