"""Checkpoint folders told apart before vLLM touches its weights."""

import json
from pathlib import Path

import pytest

from worker.rollout.engine import EngineFailure
from worker.rollout.weights import check_fit, check_folder

CONFIG = {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1, "vocab_size": 8}


def save(folder: Path, shape: tuple[int, int] = (8, 4), name: str = "embed", **config: object) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    n_bytes = 2 * shape[0] * shape[1]
    header = json.dumps({name: {"dtype": "BF16", "shape": list(shape), "data_offsets": [0, n_bytes]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(n_bytes))
    return str(folder)


def test_a_checkpoint_of_the_same_shape_fits(tmp_path: Path) -> None:
    assert check_fit(save(tmp_path / "new"), save(tmp_path / "old")) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": 5}, "hidden_size is 5, not 4"),
        ({"model_type": "qwen2"}, "model_type is 'qwen2', not 'llama'"),
        ({"shape": (8, 5)}, r"embed is \[8, 5\], not \[8, 4\]"),
        ({"name": "other"}, "embed is missing"),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    with pytest.raises(EngineFailure, match=says):
        check_fit(save(tmp_path / "new", **change), save(tmp_path / "old"))  # type: ignore[arg-type]


def test_a_checkpoint_still_being_written_is_refused(tmp_path: Path) -> None:
    old, new = save(tmp_path / "old"), Path(save(tmp_path / "new"))
    weights = new / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(EngineFailure, match="cut short"):
        check_fit(str(new), old)
    weights.write_bytes(b"")
    with pytest.raises(EngineFailure, match="not a safetensors file"):
        check_fit(str(new), old)
    weights.unlink()
    with pytest.raises(EngineFailure, match="holds no weights"):
        check_fit(str(new), old)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineFailure, match="there is no folder /nowhere/step-1"):
        check_fit("/nowhere/step-1", save(tmp_path / "old"))
    with pytest.raises(EngineFailure, match="there is no folder /nowhere/base"):
        check_folder("/nowhere/base")
    assert check_folder("HuggingFaceTB/SmolLM2-135M-Instruct") is None
