"""What is refused before anything is computed: tensors that do not fit, and vocabularies that are not the same."""

from torch import Tensor

from paced.losses.sides import Projection, TeacherLogits
from paced.losses.sparse import TopK

Teacher = Projection | TeacherLogits | TopK

MAX_PADDING = 512  # heads of one tokenizer differ by so many rows at most (Qwen2.5: 151,936 and 152,064)


def n_words(teacher: Teacher) -> int | None:
    """How many tokens the teacher tells apart; None where it lists some."""
    match teacher:
        case Projection():
            return teacher.weight_V_H.shape[0]
        case TeacherLogits():
            return teacher.logits.shape[-1]
        case _:
            return None


def shared_vocabulary(n_student: int, n_teacher: int | None, vocab_size: int | None) -> int:
    """Return how many rows of both heads are compared; raises ValueError when that is a guess."""
    n_teacher = n_student if n_teacher is None else n_teacher
    shorter = min(n_student, n_teacher)
    if vocab_size is None and abs(n_student - n_teacher) > MAX_PADDING:
        raise ValueError(
            f"the student's head has {n_student:,} rows and the teacher's {n_teacher:,}: they differ by more than "
            f"padding ({MAX_PADDING}). If both use one tokenizer, pass vocab_size=len(tokenizer); between different "
            "tokenizers this KL means nothing"
        )
    if vocab_size is not None and not 1 <= vocab_size <= shorter:
        raise ValueError(f"vocab_size is {vocab_size:,}: it must be from 1 to {shorter:,}, the shorter head's rows")
    return vocab_size or shorter


def check_shapes(student: Projection, teacher: Teacher, coefficient: Tensor) -> None:
    """Raise ValueError when tensors do not fit together, naming them."""
    for name, side in (("student", student), ("teacher", teacher)):
        if not isinstance(side, Projection):
            continue
        if side.hidden.shape[:-1] != coefficient.shape:
            shapes = f"{[*side.hidden.shape]} and the coefficients {[*coefficient.shape]}"
            raise ValueError(f"the {name}'s hidden states are {shapes}: they must agree up to the width")
        if side.weight_V_H.ndim != 2 or side.weight_V_H.shape[1] != side.hidden.shape[-1]:
            shapes = f"{[*side.weight_V_H.shape]} and {[*side.hidden.shape]}"
            raise ValueError(f"the {name}'s head and hidden states are {shapes}: give [V, H] and [..., H]")
    if isinstance(teacher, TeacherLogits) and teacher.logits.shape[:-1] != coefficient.shape:
        shapes = f"{[*teacher.logits.shape]} and the coefficients {[*coefficient.shape]}"
        raise ValueError(f"the teacher's logits are {shapes}: they must agree up to the vocabulary")
    if coefficient.requires_grad:
        raise ValueError("the coefficients require grad, which this loss cannot give: detach them")
