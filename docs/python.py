"""The reference of the Python package, from its source: signatures and docstrings, with nothing imported.

Reading the source shows trainers' adapters on machines that lack the trainers.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from docs.markdown import HEADER, prose

ROOT = Path(__file__).resolve().parents[1] / "paced"
WIDTH = 110
ROUTES = (
    ("Problems", "routes/problems.py"),
    ("Students", "routes/students.py"),
    ("Rollouts", "routes/rollouts.py"),
    ("Estimates", "routes/estimates.py"),
    ("Curricula", "routes/curricula.py"),
    ("Batches", "routes/batches.py"),
    ("Training", "routes/training.py"),
    ("The service", "routes/service.py"),
)
# module -> what of it is told
MODULES = {
    "stream": ("Stream", "Draw", "Ranks", "curriculum_named"),
    "testing": ("in_process", "InProcess"),
    "losses": (
        "distillation_loss",
        "weighted_kl",
        "KLSettings",
        "LossMetrics",
        "Projection",
        "TeacherLogits",
        "TopK",
        "sequence_coefficients",
        "step_denominator",
    ),
    "integrations.pytorch": ("BatchStream",),
    "integrations.trl": ("Curriculum", "Weighted", "WeightedSampler"),
    "integrations.trl_distillation": ("WeightedDistillation",),
    "integrations.verl": ("CurriculumDataset", "scored"),
    "integrations.openrlhf": ("prepare_datasets", "install", "rewarded", "server", "Prompts"),
    "integrations.nemo_rl": ("Prompts", "Reporting"),
    "integrations.verifiers": ("CurriculumTaskset", "CurriculumConfig", "CurriculumTask", "CurriculumData"),
    "integrations.graded": ("Graded",),
    "integrations.rows": ("Rows", "Row", "Ticket"),
}
INTRODUCTION = """# Python

What `pip install .` brings to a trainer. How to use it is told in [clients](clients.md) and [losses](losses.md).
Models such as `wire.Batch` are those of [the API](api.md#models): `from paced import wire`. A method that gives an
iterator reads its list page by page. With `AsyncClient` methods are awaited, and iterators are iterated with
`async for`.
"""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_page() -> str:
    """The whole page."""
    parts = [HEADER, INTRODUCTION]
    client = _parsed("client.py")
    parts += ["\n## paced.Client\n\n", _class(_named(client, "Client"))]
    for title, file in ROUTES:
        (routes,) = (node for node in _parsed(file).body if isinstance(node, ast.ClassDef))
        parts.append(f"\n### {title}\n\n")
        parts += [_function(route, _answer(route), "client.") for route in _public(routes)]
    parts += ["\n## paced.AsyncClient\n\n", _class(_named(client, "AsyncClient"), only_itself=True)]
    parts += ["\n## paced.errors\n\n", _errors(_parsed("errors.py"))]
    for module, names in MODULES.items():
        files = _files(module)
        parts.append(f"\n## paced.{module}\n\n{prose(ast.get_docstring(files[0]))}\n\n")
        for name in names:
            node = next(_named(tree, name) for tree in files if _has(tree, name))
            parts += [f"### {name}\n\n", _class(node) if isinstance(node, ast.ClassDef) else _function(node)]
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).rstrip() + "\n"


def _files(module: str) -> list[ast.Module]:
    """A module, or a package with the modules in it."""
    place = module.replace(".", "/")
    if not (ROOT / place).is_dir():
        return [_parsed(f"{place}.py")]
    found = sorted((ROOT / place).glob("*.py"), key=lambda path: (path.name != "__init__.py", path.name))
    return [_parsed(str(path.relative_to(ROOT))) for path in found]


def _has(tree: ast.Module, name: str) -> bool:
    return any(isinstance(node, ast.ClassDef | Function) and node.name == name for node in tree.body)


def _parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def _named(tree: ast.Module, name: str) -> ast.ClassDef | Function:
    found = (node for node in tree.body if isinstance(node, ast.ClassDef | Function) and node.name == name)
    return next(found)


def _public(node: ast.ClassDef) -> Iterator[Function]:
    return (item for item in node.body if isinstance(item, Function) and not item.name.startswith("_"))


def _class(node: ast.ClassDef | Function, *, only_itself: bool = False) -> str:
    assert isinstance(node, ast.ClassDef)
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and _is_field(item)]
    made = next((item for item in node.body if isinstance(item, Function) and item.name == "__init__"), None)
    told = [ast.unparse(item) for item in fields] if made is None else _arguments(made)
    parts = [_signature(f"class {node.name}", told, None), f"{prose(ast.get_docstring(node))}\n\n"]
    if not only_itself:
        parts += [_function(item, of=f"{node.name}.") for item in _public(node) if ast.get_docstring(item)]
    return "".join(parts)


def _is_field(item: ast.AnnAssign) -> bool:
    """A field of a dataclass or a model, not a name that another class fills in."""
    return isinstance(item.target, ast.Name) and not item.target.id.startswith("_")


def _function(node: ast.ClassDef | Function, answer: str | None = None, of: str = "") -> str:
    assert isinstance(node, Function)
    gives, name = answer or _type(node.returns), f"{of}{node.name}"
    is_property = any(isinstance(item, ast.Name) and item.id == "property" for item in node.decorator_list)
    told = f"```text\n{name}: {gives}\n```\n\n" if is_property else _signature(name, _arguments(node), gives)
    return f"{told}{prose(ast.get_docstring(node))}\n\n"


def _signature(name: str, arguments: list[str], answer: str | None) -> str:
    """One line where it fits, else one for each argument."""
    end = f" -> {answer}" if answer else ""
    line = f"{name}({', '.join(arguments)}){end}"
    if len(line) > WIDTH:
        line = f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){end}"
    return f"```text\n{line}\n```\n\n"


def _arguments(node: Function) -> list[str]:
    given = node.args
    before = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [*[None] * (len(before) - len(given.defaults)), *given.defaults]
    told = [_argument(item, default) for item, default in zip(before, defaults, strict=True) if item.arg != "self"]
    if given.vararg is not None:
        told.append(f"*{_argument(given.vararg, None)}")
    elif given.kwonlyargs:
        told.append("*")
    told += [_argument(item, default) for item, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*told, f"**{_argument(given.kwarg, None)}"] if given.kwarg is not None else told


def _argument(item: ast.arg, default: ast.expr | None) -> str:
    kind = f": {_type(item.annotation)}" if item.annotation is not None else ""
    if default is None:
        return f"{item.arg}{kind}"
    return f"{item.arg}{kind} = {_text(default)}" if kind else f"{item.arg}={_text(default)}"


def _answer(route: Function) -> str:
    """What a client's method gives: `Call[X]` is X, `Pages[X]` an iterator of X."""
    found = route.returns
    if not isinstance(found, ast.Subscript) or not isinstance(found.value, ast.Name):
        raise TypeError(f"the route {route.name} has no Call or Pages as its answer")
    inside = _type(found.slice)
    return f"Iterator[{inside}]" if found.value.id == "Pages" else inside


def _type(annotation: ast.expr | None) -> str:
    return "None" if annotation is None else _text(annotation)


def _text(node: ast.expr) -> str:
    return ast.unparse(node).replace("'", '"')


def _errors(tree: ast.Module) -> str:
    """The tree as it is drawn in the module, and what each error says."""
    first, _, drawn = prose(ast.get_docstring(tree)).partition("\n\n")
    kinds = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    said = "".join(f"- `{node.name}`: {prose(ast.get_docstring(node))}\n" for node in kinds)
    return f"{first}\n\n```text\n{drawn}\n```\n\n{said}"
