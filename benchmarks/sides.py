"""Who computes the loss that `python -m benchmarks loss` measures, all from the same inputs.

dense: full logits, log-softmax and autograd, as a trainer writes it. ours: `paced.losses`, chunk by chunk.
trl: `ChunkedDivergenceFunction`, which TRL's distillation trainer calls; it projects tiles of the vocabulary, and again
in the backward pass. liger: `LigerFusedLinearJSDLoss` with beta 0, compiled, without its cross-entropy.

The peers are installed on first use into `.benchmarks/loss`, beside and not into the environment, so that all sides run
on the same torch.
"""

# Dimension suffixes as in paced.losses are capitals:
# ruff: noqa: N806, N815

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from paced.losses import KLSettings, Projection, weighted_kl

HOME = Path(".benchmarks/loss").absolute()
# Without their dependencies, which the training environment holds; the last five are what `import trl` wants besides.
PACKAGES = ("trl==1.16.0", "liger-kernel==0.8.5", "datasets>=5,<6", "pandas>=3,<4", "pyarrow", "xxhash", "multiprocess")
WARM_UP = {"liger": 1_024}  # tokens; its chunks, because compiling for a new size would count


@dataclass(frozen=True)
class Size:
    """What is projected: tokens [N] of width H onto a vocabulary V, student and teacher alike."""

    n_tokens: int
    n_vocabulary: int
    width: int


@dataclass(frozen=True)
class Inputs:
    """Student tensors collect gradients; every token counts 1/N, since not all sides can weigh them."""

    student: Projection
    teacher: Projection
    coefficient_N: Tensor

    @classmethod
    def make(cls, size: Size, device: str) -> "Inputs":
        """Logits with a standard deviation of about 3, a teacher near its student; float32 on a CPU, else bfloat16."""
        generator = torch.Generator(device).manual_seed(7)
        dtype = torch.float32 if device == "cpu" else torch.bfloat16

        def normal(*shape: int, scale: float) -> Tensor:
            return torch.empty(*shape, device=device).normal_(generator=generator).mul_(scale).to(dtype)

        hidden = normal(size.n_tokens, size.width, scale=1)
        weight = normal(size.n_vocabulary, size.width, scale=3 / size.width**0.5)
        teacher = Projection(
            hidden + normal(size.n_tokens, size.width, scale=0.2),
            normal(size.n_vocabulary, size.width, scale=0.5 / size.width**0.5).add_(weight),
        )
        coefficient = torch.full((size.n_tokens,), 1 / size.n_tokens, device=device)
        return cls(Projection(hidden.requires_grad_(), weight.requires_grad_()), teacher, coefficient)

    def rows(self, rows: slice) -> "Inputs":
        """Some of the tokens, of the same tensors."""
        student = Projection(self.student.hidden[rows], self.student.weight_V_H)
        teacher = Projection(self.teacher.hidden[rows], self.teacher.weight_V_H)
        return Inputs(student, teacher, self.coefficient_N[rows])

    def doubled(self) -> "Inputs":
        """The same numbers in float64."""
        student, teacher = (
            Projection(side.hidden.detach().double(), side.weight_V_H.detach().double())
            for side in (self.student, self.teacher)
        )
        student.hidden.requires_grad_()
        student.weight_V_H.requires_grad_()
        return Inputs(student, teacher, self.coefficient_N.double())

    def take_gradients(self) -> list[Tensor]:
        """Return the gradients collected so far, and forget them."""
        tensors = (self.student.hidden, self.student.weight_V_H)
        gradients = [x.grad for x in tensors if x.grad is not None]
        for x in tensors:
            x.grad = None
        return gradients


def dense(inputs: Inputs) -> Tensor:
    """Forward KL from full logits, in float32 at least; no name keeps the logits longer than needed."""
    dtype = inputs.coefficient_N.dtype
    with torch.no_grad():
        lt_N_V = (inputs.teacher.hidden @ inputs.teacher.weight_V_H.T).log_softmax(-1, dtype=dtype)
    ls_N_V = (inputs.student.hidden @ inputs.student.weight_V_H.T).log_softmax(-1, dtype=dtype)
    kl_N = torch.nn.functional.kl_div(ls_N_V, lt_N_V, reduction="none", log_target=True).sum(-1)
    return (inputs.coefficient_N * kl_N).sum()


def ours(divergence: str) -> Callable[[Inputs], Tensor]:
    """The loss of `paced.losses`; on a GPU in larger chunks, since each reads and writes the gradient of the head."""

    def loss(inputs: Inputs) -> Tensor:
        settings = KLSettings(divergence, chunk_size=1_024 if inputs.coefficient_N.is_cuda else 256)
        total: Tensor = weighted_kl(inputs.student, inputs.teacher, inputs.coefficient_N, settings)[0]
        return total

    return loss


def trl(inputs: Inputs) -> Tensor:
    """Forward KL by TRL's function."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    student, teacher = inputs.student, inputs.teacher
    kl_N, _entropy_N = ChunkedDivergenceFunction.apply(
        student.hidden, student.weight_V_H, None, teacher.hidden, teacher.weight_V_H, None, 0.0
    )
    return (inputs.coefficient_N * kl_N).sum()


def liger(inputs: Inputs) -> Tensor:
    """Forward KL by Liger's module, which takes the mean over tokens itself."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    student, teacher = inputs.student, inputs.teacher
    target = torch.zeros(len(inputs.coefficient_N), dtype=torch.long, device=student.hidden.device)
    module = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0)
    loss: Tensor = module(student.hidden, student.weight_V_H, teacher.hidden, teacher.weight_V_H, target)
    return loss


SIDES: dict[str, Callable[[Inputs], Tensor]] = {
    "dense": dense,
    "ours": ours("forward_kl"),
    "trl": trl,
    "liger": liger,
    "ours_reverse_kl": ours("reverse_kl"),
    "ours_jsd": ours("jsd"),
    "ours_akl": ours("akl"),
}
PEERS = ("trl", "liger")


def install_peers() -> None:
    """Make `.benchmarks/loss` hold the peers, if the last attempt did not. Raises RuntimeError with pip's last line."""
    installed, wanted = HOME / "packages.txt", "\n".join(PACKAGES)
    if installed.exists() and installed.read_text() == wanted:
        return
    print(f"loss: installing {', '.join(PACKAGES)} into {HOME}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "install", "--progress-bar", "off", "--no-deps", "--upgrade"]
    done = subprocess.run(
        [*command, "--target", str(HOME), *PACKAGES], check=False, capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        raise RuntimeError(["", *done.stderr.splitlines()][-1] or f"pip ended with {done.returncode}")
    installed.write_text(wanted)


def find_peers() -> None:
    """Let this process import them; what the environment has goes first."""
    sys.path.append(str(HOME))
