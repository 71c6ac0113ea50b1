"""TRL's DistillationTrainer on a curriculum: a weight for each sequence, and the divergence of each draw's stage.

`class Trainer(WeightedDistillation, DistillationTrainer): ...`, then `Trainer(curriculum=..., teacher_model=..., ...)`.
Tested with TRL 1.16, which is not imported here.
"""

# Dimension suffixes are capitals: B sequences, T positions, H width.
# ruff: noqa: N803, N806

from typing import Any

import torch

from paced import wire
from paced.integrations.trl import Weighted
from paced.losses import KLSettings, LossMetrics, Projection, distillation_loss, step_denominator

SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")


class WeightedDistillation(Weighted):
    """Goes before TRL's DistillationTrainer in a class of yours; `max_steps` says how long to train.

    The student answers each problem of a draw once. An optimiser step trains on one draw: its loss is
    `Σ_i w_i · mean_t KL_{i,t} / B` over its B answers, with the draw's `loss_weight`s as w, and the divergence that the
    draw's stage names, at the trainer's `temperature`; TRL's `beta` serves evaluation alone. The divergence in nats per
    token is logged as `kl`. Raises ValueError without a teacher, and on models that scale their logits.
    """

    num_generations = 1
    num_iterations = 1
    model: Any
    teacher_model: Any
    accelerator: Any
    temperature: float
    _forward_redirection: Any
    _get_last_hidden_state: Any
    _metrics: Any
    _denominator: float
    _settings: KLSettings

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.teacher_model is None:
            raise ValueError("there is no teacher to compare with: give `teacher_model`")
        for side, model in (("student", self.model), ("teacher", self.teacher_model)):
            config = self.accelerator.unwrap_model(model).config.get_text_config()
            for name in SCALES:
                if getattr(config, name, None) not in {None, 1}:
                    raise ValueError(f"the {side} scales its logits ({name}), which this loss does not do")

    @property
    def n_micro_steps(self) -> int:
        """Backward passes that one draw is good for: those of one optimiser step."""
        return int(self.args.gradient_accumulation_steps)

    @property
    def draw_size(self) -> int:
        """Problems of one draw, which all ranks share."""
        return int(self.args.per_device_train_batch_size * self.accelerator.num_processes * self.n_micro_steps)

    def _current(self) -> wire.Batch:
        """The batch of the step that is being made; the data loader may have drawn further ones."""
        position = self.counting.n_micro_steps // self.n_micro_steps
        return next(draw.batch for draw in self.curriculum.drawn if draw.position == position)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's: the whole draw's answers, which it shuffles and splits into micro-batches by their first dimension."""
        answers: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]  # TRL's
        if self.model.training:
            batch, mask_B_T = self._current(), _scored(answers)
            weight_of = dict(zip(batch.problem_id, batch.loss_weight, strict=True))
            weights_B = torch.tensor([weight_of[row["problem_id"]] for row in inputs], device=mask_B_T.device)
            answers["loss_weight"] = weights_B
            self._denominator = step_denominator(weights_B, int(mask_B_T.sum())) or 1.0  # 0: nothing weighs anything
            self._settings = KLSettings(batch.stage.value, temperature=self.temperature)
        return answers

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted loss of one micro-batch; in evaluation TRL's own."""
        if "loss_weight" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]  # TRL's
        student = self.accelerator.unwrap_model(model)
        # Inside the wrapper's forward, where DDP listens for gradients and sharded parameters are whole.
        loss, metrics = self._forward_redirection(model, student, self._weighted_loss, student, inputs)
        kl = self.accelerator.gather(metrics.kl_token_mean).nanmean()
        self._metrics["train"]["kl"].append(kl.item())
        return (loss, None) if return_outputs else loss

    def _weighted_loss(self, student: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, LossMetrics]:
        mask_B_T = _scored(inputs)
        seen = (
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            mask_B_T.shape[1],
        )
        hidden_B_T_H = self._get_last_hidden_state(student, *seen)
        self.teacher_model.eval()
        teacher = self.accelerator.unwrap_model(self.teacher_model)
        with torch.no_grad():
            theirs_B_T_H = self._forward_redirection(
                self.teacher_model, teacher, self._get_last_hidden_state, teacher, *seen
            )
        loss, metrics = distillation_loss(
            _projection(student, hidden_B_T_H),
            _projection(teacher, theirs_B_T_H),
            mask_B_T,
            inputs["loss_weight"],
            denominator=self._denominator,
            settings=self._settings,
        )
        return loss, metrics


def _scored(answers: dict[str, Any]) -> torch.Tensor:
    """The mask [B, T] of the tokens that the student wrote, without those of tools."""
    mask: torch.Tensor = answers["completion_mask"] * answers.get("tool_mask", 1)
    return mask


def _projection(model: Any, hidden_B_T_H: torch.Tensor) -> Projection:
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    return Projection(hidden_B_T_H, head.weight, head.bias, getattr(config, "final_logit_softcapping", None))
