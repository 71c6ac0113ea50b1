"""From chats and texts to padded token tensors; which position predicts which answer token is decided here.

A sequence is prompt + answer. Token j of the answer is predicted at position `len(prompt) - 1 + j`. Student and
teacher may read different prompts before the same answer, so each has its own sequence and positions, aligned by j.

Over-long: a prompt beyond the limit takes its problem out of the step, since a cut prompt is another problem; an
answer beyond the limit keeps its first tokens and ends open, since each of them is still scored on its own prefix.

Dimension suffixes: B sequences, T positions, A answer tokens.
"""

# The suffixes above are capitals:
# ruff: noqa: N803, N806, N815

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from paced.prompts import chat_text
from paced.wire import Message
from worker.distill.teachers.target import Target

PROBE = "Probe"


@dataclass(frozen=True)
class Example:
    """One weighted sequence: the same answer after the student's prompt and after the teacher's, as token ids.

    `teacher` names the model that reads it with the student, unless a `target` holds what the teacher said before.
    """

    problem_id: int
    student_prompt: list[int]
    teacher_prompt: list[int]
    answer: list[int]
    weight: float
    teacher: str = ""
    target: Target | None = field(default=None, compare=False)

    @property
    def reader(self) -> str:
        """The teacher that must read it; empty where its target is there."""
        return self.teacher if self.target is None else ""


@dataclass(frozen=True)
class Padded:
    """Sequences padded on the right, a row each; or `packed`, one behind the other in a single row without padding.

    `place_B_T` counts each sequence's positions from 0, in a packed row alone. `position_B_A` says where in its row
    each answer token is predicted.
    """

    input_ids_B_T: Tensor
    attention_B_T: Tensor | None
    position_B_A: Tensor
    mask_B_A: Tensor
    place_B_T: Tensor | None = None

    def to(self, device: torch.device) -> "Padded":
        """The same on a device."""
        held: dict[str, Any] = {name: None if x is None else x.to(device) for name, x in vars(self).items()}
        return Padded(**held)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a causal model of transformers takes; places that begin anew keep packed sequences apart."""
        named = {"attention_mask": self.attention_B_T, "position_ids": self.place_B_T}
        return {"input_ids": self.input_ids_B_T} | {name: x for name, x in named.items() if x is not None}

    def predicting(self, hidden_B_T_H: Tensor) -> Tensor:
        """The hidden states [B, A, H] that predict the answers' tokens."""
        if self.place_B_T is not None:
            return hidden_B_T_H[0][self.position_B_A]
        index_B_A_H = self.position_B_A[:, :, None].expand(-1, -1, hidden_B_T_H.shape[-1])
        return hidden_B_T_H.gather(1, index_B_A_H)


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat up to where the answer begins; the same ids that the rollout engines send."""
    has_template = bool(getattr(tokenizer, "chat_template", None))
    text = chat_text(tokenizer, messages)
    return list(tokenizer.encode(text, add_special_tokens=not has_template, verbose=False))


def end_of_turn(tokenizer: Any) -> int:
    """The token that ends an assistant turn: what the chat template puts there, else the tokenizer's EOS.

    Raises ValueError where neither exists.
    """
    if getattr(tokenizer, "chat_template", None):
        chat = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": PROBE}]
        tail = str(tokenizer.apply_chat_template(chat, tokenize=False)).rpartition(PROBE)[2]
        special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        for token in tokenizer.encode(tail, add_special_tokens=False):
            if token in special:
                return int(token)
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-sequence token, and its chat template ends no assistant turn")
    return int(tokenizer.eos_token_id)


def encode_answer(tokenizer: Any, text: str, end: int, limit: int, *, is_complete: bool) -> list[int]:
    """Token ids of an answer, closed by the token `end` if it is complete and within `limit` tokens."""
    ids = list(tokenizer.encode(text, add_special_tokens=False, verbose=False))
    return [*ids, end][:limit] if is_complete else ids[:limit]


def micro_batches(
    examples: Sequence[Example], size: int, n_tokens: int | None = None, *, is_packed: bool = False
) -> Iterator[list[Example]]:
    """Split a step into groups of similar length, longest first: little padding, and memory fails at once or never.

    A group has at most `size` sequences, which take at most `n_tokens`, padding included, on either side; one that is
    longer is a group of its own. It has one reader, since the heads of several teachers cannot be compared at once.
    """
    by_reader = sorted(examples, key=lambda e: (e.reader, -len(e.student_prompt) - len(e.answer), e.problem_id))
    for _, found in itertools.groupby(by_reader, lambda e: e.reader):
        group: list[Example] = []
        for example in found:
            grown = [*group, example]
            if group and (len(grown) > size or (n_tokens is not None and _n_tokens(grown, is_packed) > n_tokens)):
                yield group
                grown = [example]
            group = grown
        yield group


def _n_tokens(examples: Sequence[Example], is_packed: bool) -> int:
    """What these take at once, of the student's or the teacher's tokens, whichever are more."""
    sides = [(len(e.student_prompt) + len(e.answer), len(e.teacher_prompt) + len(e.answer)) for e in examples]
    if is_packed:
        return max(map(sum, zip(*sides, strict=True)))
    return len(sides) * max(map(max, sides))


def lay_out(prompts: Sequence[list[int]], answers: Sequence[list[int]], *, is_packed: bool) -> Padded:
    """Prompts and their answers as tensors, packed or padded."""
    return pack(prompts, answers) if is_packed else pad(prompts, answers, pad_id=0)


def pack(prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> Padded:
    """Lay prompts and their answers out one behind the other in one row; every prompt and answer must hold a token."""
    ids: list[int] = []
    places: list[int] = []
    starts: list[int] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        assert prompt, "an empty prompt predicts nothing"
        starts.append(len(ids) + len(prompt) - 1)
        ids += [*prompt, *answer]
        places += range(len(prompt) + len(answer))
    lengths_B = torch.tensor([len(answer) for answer in answers])
    offset_A = torch.arange(max(map(len, answers)))
    mask_B_A = offset_A < lengths_B[:, None]
    position_B_A = (torch.tensor(starts)[:, None] + offset_A) * mask_B_A
    return Padded(torch.tensor([ids]), None, position_B_A, mask_B_A, torch.tensor([places]))


def pad(prompts: Sequence[list[int]], answers: Sequence[list[int]], pad_id: int) -> Padded:
    """Lay prompts and their answers out as tensors; every prompt and answer must hold a token."""
    n_sequences = len(prompts)
    n_positions = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    n_answer = max(len(a) for a in answers)
    input_ids_B_T = torch.full((n_sequences, n_positions), pad_id)
    attention_B_T = torch.zeros((n_sequences, n_positions), dtype=torch.long)
    position_B_A = torch.zeros((n_sequences, n_answer), dtype=torch.long)
    mask_B_A = torch.zeros((n_sequences, n_answer), dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        assert prompt, "an empty prompt predicts nothing"
        end = len(prompt) + len(answer)
        input_ids_B_T[row, :end] = torch.tensor(prompt + answer)
        attention_B_T[row, :end] = 1
        position_B_A[row, : len(answer)] = torch.arange(len(prompt) - 1, end - 1)
        mask_B_A[row, : len(answer)] = True
    return Padded(input_ids_B_T, attention_B_T, position_B_A, mask_B_A)
