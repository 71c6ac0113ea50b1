"""Data files of a folder as Hugging Face `datasets` keeps it: saved by `save_to_disk`, or a clone from the hub."""

import re
from pathlib import Path

SUFFIXES = (".parquet", ".arrow", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
PACKINGS = (".gz", ".zst")
_NOT_DATA = frozenset({"dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json", "config.json"})
_SPLIT = re.compile(r"^(train|test|valid(?:ation)?|dev|eval)(?=[-_.]|$)", re.IGNORECASE)


class DatasetError(Exception):
    """The folder holds no data file, or several splits of which none was chosen."""


def find_files(folder: Path, split: str | None) -> list[Path]:
    """The data files of one split, in order of their paths.

    A file's split is the folder it stands in (`train/data-00000-of-00001.arrow`) or begins its name
    (`data/train-00000-of-00002.parquet`). Raises DatasetError.
    """
    found = [path for path in sorted(folder.rglob("*")) if _is_data(path, folder)]
    if not found:
        raise DatasetError(f"{folder} holds no {', '.join(SUFFIXES)} file; name one, or a folder of `datasets`")
    splits = {path: _split_of(path, folder) for path in found}
    names = sorted({name for name in splits.values() if name})
    if split is None and len(names) > 1:
        raise DatasetError(f"{folder} holds the splits {', '.join(names)}; choose one with --split")
    if split is None:
        return found
    chosen = [path for path, name in splits.items() if name == split]
    if not chosen:
        raise DatasetError(f"{folder} has no split {split}; it has {', '.join(names) or 'none'}")
    return chosen


def _is_data(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    if path.name in _NOT_DATA or any(part.startswith(".") for part in parts) or path.name.startswith("cache-"):
        return False
    stem = path.name
    for packing in PACKINGS:
        stem = stem.removesuffix(packing)
    return path.is_file() and stem.endswith(SUFFIXES)


def _split_of(path: Path, folder: Path) -> str:
    *parents, name = path.relative_to(folder).parts
    for part in (name, *reversed(parents)):
        found = _SPLIT.match(part)
        if found:
            return found[1]
    return ""
