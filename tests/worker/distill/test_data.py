"""Prompts, answers, masks and alignment against cases worked out by hand."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from paced.wire import Message
from tests.worker.distill.tiny import END, tiny_folder
from worker.distill.data import Example, encode_answer, encode_chat, end_of_turn, micro_batches, pad


def test_padding_puts_each_answer_token_behind_the_position_that_predicts_it() -> None:
    padded = pad([[5, 6, 7], [8]], [[1, 2], [3, 4, 9]], pad_id=0)
    assert padded.input_ids_B_T.tolist() == [[5, 6, 7, 1, 2], [8, 3, 4, 9, 0]]
    assert padded.attention_B_T.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert padded.position_B_A.tolist() == [[2, 3, 0], [0, 1, 2]]
    assert padded.mask_B_A.tolist() == [[True, True, False], [True, True, True]]


def test_the_token_after_each_predicting_position_is_the_answer_token() -> None:
    prompts, answers = [[11] * n for n in (4, 1, 7)], [[21, 22], [31, 32, 33, 34], [41]]
    padded = pad(prompts, answers, pad_id=0)
    after = padded.input_ids_B_T.gather(1, (padded.position_B_A + 1) * padded.mask_B_A)
    for row, answer in enumerate(answers):
        assert after[row, : len(answer)].tolist() == answer
        assert int(padded.mask_B_A[row].sum()) == len(answer)


def test_student_and_teacher_prompts_of_other_lengths_align_by_answer_token() -> None:
    answer = [[1, 2, 3]]
    ours, theirs = pad([[7]], answer, 0), pad([[7, 8, 9]], answer, 0)
    assert torch.equal(ours.mask_B_A, theirs.mask_B_A)
    assert (theirs.position_B_A - ours.position_B_A).tolist() == [[2, 2, 2]]


def test_an_assistant_turn_ends_as_the_chat_template_ends_it(student: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student)
    end = end_of_turn(tokenizer)
    assert tokenizer.convert_ids_to_tokens(end) == END
    tokenizer.eos_token = "<|pad|>"  # as in models whose end of text is not their end of turn
    assert end_of_turn(tokenizer) == end
    tokenizer.chat_template = None
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-sequence"):
        end_of_turn(tokenizer)


def test_prompt_and_answer_make_up_the_whole_chat(student: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student)
    messages = [Message(role="user", content="Compute 1 + 2.")]
    prompt = encode_chat(tokenizer, messages)
    answer = encode_answer(tokenizer, "3", end_of_turn(tokenizer), 16, is_complete=True)
    chat = [*(m.model_dump() for m in messages), {"role": "assistant", "content": "3"}]
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    assert tokenizer.decode(prompt + answer) + "\n" == whole


def test_only_a_complete_answer_within_the_limit_is_closed(student: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student)
    three = tokenizer.encode("abc", add_special_tokens=False)
    assert encode_answer(tokenizer, "abc", 2, 4, is_complete=True) == [*three, 2]
    assert encode_answer(tokenizer, "abc", 2, 3, is_complete=True) == three
    assert encode_answer(tokenizer, "abc", 2, 2, is_complete=True) == three[:2]
    assert encode_answer(tokenizer, "abc", 2, 4, is_complete=False) == three
    assert encode_answer(tokenizer, "", 2, 4, is_complete=False) == []


def test_micro_batches_hold_every_example_once_longest_first() -> None:
    examples = [Example(n, [0] * n, [0], [1], 1.0) for n in (3, 1, 5, 4, 2)]
    groups = list(micro_batches(examples, 2))
    assert [[e.problem_id for e in group] for group in groups] == [[5, 4], [3, 2], [1]]


def test_a_tiny_folder_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, again = tiny_folder(tmp_path / "a", seed=3), tiny_folder(tmp_path / "b", seed=3)
    assert (first / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
