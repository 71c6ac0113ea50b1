"""At step 0: does a served teacher say what the same weights say here, and what does listing some tokens cost?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paced.losses import KLSettings, Projection, TopK, distillation_loss
from paced.wire import Message, Stage
from worker.distill.config import DistillConfig
from worker.distill.data import Example, encode_answer, encode_chat, end_of_turn, pad
from worker.distill.model import DTYPES, answer_projection, autocast, load_model
from worker.distill.teachers.local import LocalModel
from worker.distill.teachers.preflight import PROBE
from worker.distill.teachers.served import ServedModel
from worker.distill.teachers.target import Target, stacked
from worker.precision import resolved

LIKELY = -7.0  # below, rounding in bfloat16 alone makes large differences of logarithms
TEXTS = (
    ("Compute 7 * 8. Reply with the number only.", "56"),
    ("Solve 3x + 5 = 20.", "Subtract 5 from both sides: 3x = 15. Divide by 3: x = 5.\n\nThe answer is \\boxed{5}."),
    ("Repeat this text.", PROBE),
)


@dataclass(frozen=True)
class Parity:
    """Served against local: nats of listed log-probabilities, shares of 1, and a student's losses per token.

    `loss_served` and `loss_local` compare the student with the same listed tokens of both, `loss_whole` with the local
    teacher's whole vocabulary.
    """

    n_tokens: int
    n_listed: int
    logprob_mean: float
    logprob_max: float
    same_first_share: float
    loss_served: float
    loss_local: float
    loss_whole: float

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


def probes(tokenizer: Any) -> list[Example]:
    """Chats and answers to score."""
    end, found = end_of_turn(tokenizer), []
    for number, (prompt, text) in enumerate(TEXTS):
        ids = encode_chat(tokenizer, [Message(role="user", content=prompt)])
        answer = encode_answer(tokenizer, text, end, len(text) + 1, is_complete=True)
        found.append(Example(number, ids, ids, answer, 1.0))
    return found


def parity(served: ServedModel, folder: Path, config: DistillConfig, examples: Sequence[Example], top_k: int) -> Parity:
    """Score the same texts with a served teacher and with the one in a folder, and a student's loss by both.

    Raises TeacherSilent and ModelRefused.
    """
    device = torch.device("cpu" if config.device == "auto" else config.device)
    dtype = DTYPES[resolved(config.dtype, device.type)]
    local = LocalModel(folder, batch_size=len(examples))
    local.load(device, dtype)
    theirs, ours = served.score(examples, top_k), local.score(examples, top_k)
    student = load_model(config.student, dtype, device)
    padded = pad([e.student_prompt for e in examples], [e.answer for e in examples], pad_id=0).to(device)
    with torch.no_grad(), autocast(device, dtype):
        side = answer_projection(student, padded, dtype)

    def loss(teacher: Projection | TopK) -> float:
        weights = torch.ones(len(examples), device=device)
        settings = KLSettings(config.divergence_of(Stage.FORWARD_KL))
        _, metrics = distillation_loss(side, teacher, padded.mask_B_A, weights, denominator=1.0, settings=settings)
        return float(metrics.kl_token_mean)

    gaps, n_same = [], 0
    for their, our in zip(theirs, ours, strict=True):
        for row in range(len(our.ids_A_K)):
            a, b = _told(their, row), _told(our, row)
            n_same += max(a, key=a.__getitem__) == max(b, key=b.__getitem__)
            gaps += [abs(a[token] - b[token]) for token in a.keys() & b.keys() if max(a[token], b[token]) > LIKELY]
    n_tokens = sum(len(example.answer) for example in examples)
    return Parity(
        n_tokens,
        top_k,
        float(np.mean(gaps)),
        float(np.max(gaps)),
        n_same / n_tokens,
        loss(stacked(theirs, device)),
        loss(stacked(ours, device)),
        loss(local.side(examples)),
    )


def _told(target: Target, row: int) -> dict[int, float]:
    listed = zip(target.ids_A_K[row].tolist(), target.logprobs_A_K[row].tolist(), strict=True)
    return {token: logprob for token, logprob in listed if token >= 0}
