"""Every setting of a distillation run: read from TOML, overridden by flags, checked here and nowhere else."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from paced.wire import Stage
from paced.wire.base import Name
from worker.distill.errors import ConfigRefused
from worker.distill.teachers.addresses import DEFAULT_TAG, SELF, TeacherAt
from worker.precision import Dtype

# What may differ between two starts of one run: where and how often, not what is computed.
FREE_FIELDS = frozenset(
    {
        "out",
        "micro_batch_size",
        "micro_batch_tokens",
        "packing",
        "gradient_checkpointing",
        "chunk_tokens",
        "device",
        "max_steps",
        "engine",
        "engine_gpu_share",
        "generate_batch_size",
        "save_every",
        "wait_for_measurement",
        "wait_s",
        "parallel",
        "rank_timeout_s",
        "teacher_key_env",
        "teacher_requests",
        "teacher_timeout_s",
        "targets_dir",
    }
)


class DistillConfig(BaseModel):
    """Settings of one run; durations in seconds, lengths in tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    curriculum_id: Annotated[str, Field(description="What the run subscribes to")]
    student: Annotated[Path, Field(description="Hugging Face folder of the student at step 0")]
    teacher: Annotated[
        str,
        Field(description="'self', or a teacher with the student's tokenizer: its folder, or its URL ending in /v1"),
    ] = SELF
    run_name: Annotated[Name, Field(description="With the curriculum, the run's identity")] = "distill"
    out: Annotated[Path, Field(description="Folder of checkpoints, metrics and resume state")] = Path("distill")

    batch_size: Annotated[int, Field(ge=1, le=65_536, description="Problems a step")] = 16
    micro_batch_size: Annotated[int, Field(ge=1, description="Sequences at once; less memory, same step")] = 16
    micro_batch_tokens: (
        Annotated[int, Field(ge=1, description="Tokens at once, padding included, if fewer sequences fit; null: any")]
        | None
    ) = None
    packing: Annotated[
        bool, Field(description="Lay sequences end to end instead of padding them; tried on the model first")
    ] = False
    gradient_checkpointing: Annotated[
        bool, Field(description="Compute activations again in the backward pass: less memory, more time, same step")
    ] = False
    lora_rank: Annotated[int, Field(ge=0, le=4096, description="Of trained adapters; 0: all weights are trained")] = 0
    lora_alpha: (
        Annotated[float, Field(gt=0, description="Adapters count alpha / rank; null: twice the rank")] | None
    ) = None
    lora_targets: Annotated[
        list[str], Field(description="Names of the layers that get adapters; empty: every linear one but the head")
    ] = []
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    reverse_learning_rate: Annotated[float, Field(gt=0, description="In the reverse stage; null: the same")] | None = (
        None
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    clip_norm: Annotated[float, Field(gt=0, description="Gradient norm at which gradients are scaled down")] = 1.0
    warmup_steps: Annotated[int, Field(ge=0, description="Steps of linear warm-up, in each stage")] = 0
    lr_schedule: Annotated[
        Literal["constant", "linear", "cosine"], Field(description="The learning rate after the warm-up, in each stage")
    ] = "constant"
    lr_steps: (
        Annotated[int, Field(ge=1, description="Steps of a stage until it has fallen; null: all of the stage")] | None
    ) = None
    lr_floor: Annotated[float, Field(ge=0, le=1, description="Share of the peak to which it falls")] = 0.0
    dtype: Annotated[
        Dtype, Field(description="Of the arithmetic; master weights are float32. auto: bfloat16 where that is fast")
    ] = "auto"
    weights_dtype: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="Of the trained weights; bfloat16 needs less memory, updates are rounded by chance"),
    ] = "float32"
    reduction: Annotated[
        Literal["seq_mean", "token_mean", "seq_sum"], Field(description="How a sequence's tokens are added up")
    ] = "seq_mean"
    denominator: Annotated[
        Literal["set_mean", "batch"],
        Field(description="D: batch size (a batch of low weights stays small), or the batch's own sum of weights"),
    ] = "set_mean"
    temperature: Annotated[float, Field(gt=0, description="Of both distributions in the KL")] = 1.0
    teacher_sharpness: Annotated[
        float, Field(gt=0, description="Factor on the teacher's logits; above 1 it teaches to be surer than it is")
    ] = 1.0
    chunk_tokens: Annotated[int, Field(ge=1, description="Tokens projected to the vocabulary at once")] = 256
    max_prompt_tokens: Annotated[int, Field(ge=1, description="Problems with longer prompts are left out")] = 2048
    max_answer_tokens: Annotated[int, Field(ge=1, description="Answers are cut here")] = 2048
    max_steps: Annotated[int, Field(ge=1, description="End here even if the schedule goes on")] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Annotated[str, Field(description="'auto', or a torch device")] = "auto"
    parallel: Annotated[
        Literal["ddp", "fsdp"],
        Field(description="On several processes: ddp, a whole student on each; fsdp, its weights shared out (FSDP2)"),
    ] = "ddp"
    rank_timeout_s: Annotated[float, Field(gt=0, description="Longest wait of a process for another one's part")] = 1800
    draw_ahead: Annotated[bool, Field(description="Draw the next batch while this one is trained on")] = True

    forward_divergence: Annotated[
        Literal["kl", "akl", "jsd"], Field(description="What the stage `forward_kl` minimises, on the teacher's text")
    ] = "kl"
    teachers: Annotated[
        dict[str, TeacherAt],
        Field(description="Teachers by the first tag of a problem that is named; one is `default`"),
    ] = {}
    teacher_model: Annotated[str, Field(description="Name under which a URL serves it; null: the only one")] | None = (
        None
    )
    teacher_key_env: Annotated[str, Field(description="Environment variable that holds a URL's key")] = (
        "PACED_TEACHER_KEY"
    )
    teacher_top_k: (
        Annotated[
            int,
            Field(
                ge=1, le=4096, description="Likeliest tokens to compare; null: 20 of a URL's, all of a local teacher's"
            ),
        ]
        | None
    ) = None
    teacher_requests: Annotated[int, Field(ge=1, le=4096, description="Texts that a URL scores at once")] = 16
    teacher_timeout_s: Annotated[float, Field(gt=0, description="Longest wait for one answer of a URL")] = 600
    targets_dir: (
        Annotated[Path, Field(description="Folder of computed targets, which runs may share; null: OUT/targets")] | None
    ) = None
    arm: Annotated[Name, Field(description="Which arm of a comparison this run is")] | None = None

    teacher_context: Annotated[
        str, Field(description="What the self teacher is shown; holds {prompt} and {answer}")
    ] = "{prompt}\n\nThe correct answer is {answer}."
    teacher_context_solution: Annotated[
        str, Field(description="The same where the problem has a reference solution: may hold {solution}")
    ] = "{prompt}\n\nA correct solution:\n{solution}\n\nThe correct answer is {answer}."
    teacher_temperature: Annotated[float, Field(ge=0, description="Of the teacher's text")] = 0.6
    teacher_top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    teacher_attempts: Annotated[
        int, Field(ge=1, le=64, description="Tries at a right text a problem; if all fail the first is kept")
    ] = 4
    drop_wrong_references: (
        Annotated[
            bool, Field(description="Leave wrong teacher texts out of forward KL; null: yes for the self teacher")
        ]
        | None
    ) = None
    engine: Annotated[
        Literal["auto", "transformers", "vllm"],
        Field(description="Writes the teacher's text; auto: vllm on a GPU if installed"),
    ] = "auto"
    engine_gpu_share: Annotated[float, Field(gt=0, lt=1, description="Of the GPU's memory, for vllm")] = 0.3
    generate_batch_size: Annotated[int, Field(ge=1, description="Texts generated at once in this process")] = 64

    on_policy_temperature: (
        Annotated[float, Field(gt=0, description="Of the student's text in the reverse stage; null: the profile's")]
        | None
    ) = None
    on_policy_top_p: Annotated[float, Field(gt=0, le=1, description="The same, for top-p")] | None = None
    report_outcomes: Annotated[bool, Field(description="Report graded on-policy answers as observations")] = False

    stage_ends: Annotated[
        Literal["steps", "plateau", "mastered"],
        Field(
            description="When a stage ends: after its steps in the schedule; or, at a checkpoint before that, when the "
            "hold-out improves no more, or when enough of the frontier is mastered"
        ),
    ] = "steps"
    plateau_checkpoints: Annotated[
        int, Field(ge=1, description="Checkpoints in a row that do not beat the best hold-out by its standard error")
    ] = 3
    mastered_share: Annotated[
        float, Field(gt=0, le=1, description="Share with p >= 0.9 of the training problems with p >= 0.1")
    ] = 0.5
    checkpoint_every: Annotated[int, Field(ge=0, description="Steps between registered checkpoints; 0: stage ends")] = 0
    save_every: Annotated[int, Field(ge=1, description="Steps between saved resume states")] = 20
    wait_for_measurement: Annotated[bool, Field(description="Measure the student anew before the next stage")] = True
    wait_s: Annotated[float, Field(gt=0, description="Longest wait for workers: for problems, or a measurement")] = 3600

    @model_validator(mode="after")
    def _templates_hold_prompt(self) -> Self:
        for name in ("teacher_context", "teacher_context_solution"):
            if "{prompt}" not in getattr(self, name):
                raise ValueError(f"{name} must hold {{prompt}}, where the problem goes")
        return self

    @field_validator("teachers", mode="before")
    @classmethod
    def _short_teachers(cls, teachers: Any) -> Any:
        """`algebra = "/models/teacher"` is short for a table with `at` alone."""
        if not isinstance(teachers, Mapping):
            return teachers
        return {tag: {"at": found} if isinstance(found, str) else found for tag, found in teachers.items()}

    @model_validator(mode="after")
    def _teachers_fit_together(self) -> Self:
        if self.teachers and self.teacher != SELF:
            raise ValueError("give one teacher, or [teachers] by tag, not both")
        if self.teachers and DEFAULT_TAG not in self.teachers:
            raise ValueError(f"[teachers] must name one {DEFAULT_TAG!r}, for problems whose tags name none")
        is_sparse = self.teacher_top_k is not None or any(one.is_served for one in self.by_tag.values())
        if is_sparse and (self.temperature != 1 or self.teacher_sharpness != 1):
            raise ValueError(
                "temperature and teacher_sharpness must be 1 with a teacher behind a URL or a top-k: its "
                "log-probabilities are those of temperature 1"
            )
        if is_sparse and self.forward_divergence == "akl":
            raise ValueError(
                "forward_divergence 'akl' needs the teacher's whole distribution: take a local teacher "
                "without teacher_top_k, or 'kl' or 'jsd'"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_trained(self) -> Self:
        if self.lora_rank and self.weights_dtype != "float32":
            raise ValueError(
                "weights_dtype is of weights that are trained: leave it out with lora_rank, whose adapters "
                "are float32 and whose frozen weights are in dtype"
            )
        return self

    @model_validator(mode="after")
    def _stages_can_end(self) -> Self:
        if self.stage_ends != "steps" and not self.checkpoint_every:
            raise ValueError(
                f"stage_ends {self.stage_ends!r} is looked at where checkpoints are made: give checkpoint_every"
            )
        return self

    @property
    def by_tag(self) -> dict[str, TeacherAt]:
        """The teachers by tag, the one for all other problems under `default`."""
        given = self.teachers or {DEFAULT_TAG: TeacherAt(at=self.teacher)}
        own = {"model": self.teacher_model, "key_env": self.teacher_key_env}
        return {
            tag: one.model_copy(update={name: value for name, value in own.items() if getattr(one, name) is None})
            for tag, one in given.items()
        }

    def is_dropping_wrong(self, *, is_self: bool) -> bool:
        """Whether wrong texts of a teacher are left out."""
        return is_self if self.drop_wrong_references is None else self.drop_wrong_references

    def top_k_of(self, teacher: TeacherAt) -> int | None:
        """How many tokens a teacher tells of each place; None for its whole distribution."""
        return self.teacher_top_k or teacher.default_top_k

    def divergence_of(self, stage: Stage) -> str:
        """The divergence that a stage minimises, by its name in `paced.losses`."""
        is_other = stage == Stage.FORWARD_KL and self.forward_divergence != "kl"
        return self.forward_divergence if is_other else stage.value

    @property
    def is_writing_with_copy(self) -> bool:
        """Whether the student's own text is written by a copy of it."""
        return self.parallel == "fsdp" or (self.dtype != self.weights_dtype and not self.lora_rank)

    @property
    def held_dtype(self) -> str:
        """Of the weights that the student holds; beside adapters that of the arithmetic, unless ranks gather them."""
        return self.dtype if self.lora_rank and self.parallel != "fsdp" else self.weights_dtype

    @property
    def targets_folder(self) -> Path:
        """Where computed targets lie."""
        return self.targets_dir or self.out / "targets"

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is computed, as JSON; a resumed run must have the same."""
        fields: dict[str, Any] = self.model_dump(mode="json", exclude=set(FREE_FIELDS))
        fields["student"] = str(self.student.resolve())
        if self.teacher != SELF:
            fields["teacher"] = TeacherAt(at=self.teacher).identity()["at"]
        fields["teachers"] = {tag: one.identity() for tag, one in self.teachers.items()}
        return fields


def load_config(
    path: Path | None, overrides: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> DistillConfig:
    """The settings of a TOML file with overrides on top; None among the overrides leaves the file's value.

    `defaults` stand for what neither gives.

    Raises ConfigRefused, naming every setting that is wrong.
    """
    try:
        values = {} if path is None else tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigRefused(f"{path} cannot be read as TOML: {error}") from error
    given = {name: value for name, value in overrides.items() if value is not None}
    values = {**(defaults or {}), **values, **given}
    try:
        return DistillConfig.model_validate(values)
    except ValidationError as error:
        source = "the command line" if path is None else f"{path} or the command line"
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise ConfigRefused("\n".join([f"these settings, from {source}, will not do:", *lines])) from error


def parse_setting(text: str) -> tuple[str, Any]:
    """`name=value` as a pair, the value read as TOML or else as it stands. Raises ConfigRefused without a `=`."""
    name, is_given, value = text.partition("=")
    if not is_given:
        raise ConfigRefused(f"--set {text}: write NAME=VALUE, for example --set learning_rate=1e-5")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value
