"""What the page on losses tells to type works, and gives what dense autograd gives."""

import re
from pathlib import Path

import pytest
import torch

from tests.paced.dense import assert_close
from tests.worker.distill.tiny import tiny_folder
from worker.distill.model import load_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "losses.md"


@pytest.fixture
def names(tmp_path):
    """What the snippets take for granted: two models, and a batch of answers behind prompts, padded on the right."""
    folders = [tiny_folder(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    student, teacher = (load_model(folder, torch.float64, torch.device("cpu")) for folder in folders)
    torch.manual_seed(0)
    return {
        "student": student,
        "teacher": teacher,
        "input_ids": torch.randint(3, 90, (2, 7)),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]]),
        "answer_mask": torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0]]),
        "weights": torch.tensor([0.5, 2.0], dtype=torch.float64),
    }


def test_the_snippets_work(names):
    snippets = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) == 2
    student, mask, weights = names["student"], names["answer_mask"][:, 1:], names["weights"]

    def log_probs(model):
        return model(names["input_ids"], attention_mask=names["attention_mask"]).logits[:, :-1].log_softmax(-1)

    with torch.no_grad():
        lt = log_probs(names["teacher"])
    kl = (lt.exp() * (lt - log_probs(student))).sum(-1) * mask
    dense = (weights * kl.sum(-1) / mask.sum(-1)).sum() / 2
    gradients = torch.autograd.grad(dense, list(student.parameters()))

    exec(snippets[0], names)
    assert_close(names["loss"], dense, 1e-12)
    for ours, whole in zip(student.parameters(), gradients, strict=True):
        assert_close(ours.grad, whole, 1e-12)

    top = lt.topk(20)
    snippet = {**names, "teacher_ids": top.indices, "teacher_logprobs": top.values}
    exec(snippets[1], snippet)
    assert 0.5 * dense < snippet["loss"] < dense
