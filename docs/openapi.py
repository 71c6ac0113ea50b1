"""The page docs/api.md: the OpenAPI document with examples, scopes and error codes, in the order of the data flow."""

import ast
import inspect
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.http.problem_json import FIELD_CODES
from docs.markdown import HEADER, code, prose, table

Json = dict[str, Any]
Node = TypeVar("Node", bound=ast.AST)
APP = Path(__file__).resolve().parents[1] / "app"
JSON, STREAM = "application/json", "application/octet-stream"
CONVENTIONS = """# HTTP API

The service describes itself at `/openapi.json` (OpenAPI 3.1). What holds for every route:

- **Keys.** `Authorization: Bearer KEY`. Without one, or with a wrong one, the answer is 401; a key that lacks the scope
  gets 403. `/healthz`, `/readyz` and `/openapi.json` ask for none. Scopes: `read`, `import`, `rollout`, `train`,
  `admin`; `admin` may do everything.
- **Errors** are problem details (RFC 9457, `application/problem+json`) with `type`, `title`, `status`, `detail` and a
  stable `code`; `detail` says what happened, where, and what to do. Programs go by [`code`](#error-codes). A body that
  breaks its model answers 422 with each field and its own code in `errors` (`out_of_range`, `unknown_field`, ...);
  one that is not JSON, 422 with `bad_json`.
- **Retries.** 409, 429 and 503 carry `Retry-After` where waiting helps. POSTs that create leases, batches and
  checkpoints take an `Idempotency-Key`: the same key with the same body is answered alike, with another body it is
  refused. Creating a problem set, student, profile, measurement, curriculum or run again returns the one there is.
- **Lists** come in pages: `limit` (up to 1,000) and `cursor`, which is the `next_cursor` of the page before, also as a
  `Link` header with `rel="next"`.
- **Caching.** JSON answers to GET carry an `ETag`; `If-None-Match` gets 304 while nothing changed.
- **Strictness.** Unknown fields of a body and unknown query parameters are refused with 422, and so are NaN and
  infinity. Answers may gain fields.
- **Units.** Times are RFC 3339 in UTC, durations end in `_s` (seconds), counts begin with `n_`.
- **Sizes.** A JSON body over `PACED_MAX_BODY_MB`, or an import over `PACED_MAX_IMPORT_MB`, answers 413 with the limit.
"""


def api_page(app: FastAPI) -> str:
    """Operations by tag, then the models, then the error codes."""
    document = app.openapi()
    schemas: Json = document["components"]["schemas"]
    needed = _scopes(app.routes)
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            scope = needed.get(operation["operationId"])
            text = "".join(_operation(f"{method.upper()} {path}", operation, scope, schemas))
            by_tag.setdefault(operation["tags"][0], []).append(text)
    shown = sorted(name for name in schemas if not name.startswith("Page_") and "ValidationError" not in name)
    refusals, errors = _codes(("RefusedRowError", "RowRefused", "UnreadableFile")), _error_codes()
    return "".join(
        [
            HEADER,
            CONVENTIONS,
            *(f"\n## {tag}\n{''.join(texts)}" for tag, texts in by_tag.items()),
            "\n## Models\n",
            *(_model(name, schemas[name]) for name in shown),
            "\n## Error codes\n\n",
            table(("code", "status"), errors),
            "\nCodes of refused rows in an import's report, and of files that cannot be read at all (422):\n",
            f"{', '.join(f'`{item}`' for item in sorted(set(refusals)))}.\n",
        ]
    )


def _scopes(routes: Iterable[Any]) -> dict[str, str]:
    """The scope that each operation asks of a key: what its route's dependency `requires(...)` holds on to."""
    found = {}
    for route in routes:
        for dependency in route.dependencies if isinstance(route, APIRoute) else ():
            if dependency.dependency is None:
                continue
            needed = inspect.getclosurevars(dependency.dependency).nonlocals.get("needed")
            if needed is not None:
                found[str(route.operation_id)] = str(needed.value)
    return found


def _operation(title: str, operation: Json, scope: str | None, schemas: Json) -> Iterator[str]:
    access = f"a key with scope `{scope}`" if scope else "no key"
    yield f"\n### {title}\n\n{operation['description']}\n\n`{operation['operationId']}`; needs {access}.\n"
    rows = [
        (f"`{item['name']}`", item["in"], kind(item["schema"]), item.get("description", ""))
        for item in operation.get("parameters", [])
        if item["in"] != "path"
    ]
    if rows:
        yield "\n" + table(("parameter", "in", "type", "meaning"), rows)
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield _body("Body", media, content, schemas)
    for status, response in operation["responses"].items():
        if status == "default":
            continue  # problem details, the same everywhere
        if not response.get("content"):
            yield f"\nAnswer {status}, empty.\n"
        for media, content in response.get("content", {}).items():
            yield _body(f"Answer {status}", media, content, schemas)


def _body(what: str, media: str, content: Json, schemas: Json) -> str:
    schema = content.get("schema", {})
    shown = content.get("example") or example(schema, schemas)
    if media == STREAM:
        return f"\n{what}, the file as it is (`{media}`):\n\n```\n{str(shown).strip()}\n```\n"
    if isinstance(shown, str):
        return f"\n{what} (`{media}`):\n\n```\n{shown}\n```\n"
    return f"\n{what}: {kind(schema)}\n\n```json\n{json.dumps(shown, indent=2, ensure_ascii=False)}\n```\n"


def example(schema: Json, schemas: Json) -> Any:
    """A value of a schema: its own example, or one put together from its parts'; None where there is none."""
    if "$ref" in schema:
        return example(schemas[_name(schema)], schemas)
    if "examples" in schema:
        shown, order = schema["examples"][0], list(schema.get("properties", ()))
        return {name: shown[name] for name in sorted(shown, key=order.index)} if order else shown
    if schema.get("type") == "array":
        return [example(schema["items"], schemas)]
    if "properties" in schema:
        return {name: example(part, schemas) for name, part in schema["properties"].items()}
    return None


def kind(schema: Json) -> str:
    """A schema's type in a few words, with links to models and with its bounds."""
    if "$ref" in schema:
        name = _name(schema)
        item = name.removeprefix("Page_").removesuffix("_")
        return f"{'page of ' if item != name else ''}[{item}](#{item.lower()})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(kind(part) for part in schema[word]))
    if schema.get("type") == "array":
        inner = schema.get("prefixItems") or [schema.get("items", {})]
        return f"list of {kind(inner[0])}"
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    words = [schema.get("format") or schema.get("type", "any")]
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    words += [f"{sign} {_number(schema[name])}" for name, sign in bounds.items() if name in schema]
    return " ".join(words)


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _name(reference: Json) -> str:
    return str(reference["$ref"].rpartition("/")[2])


def _model(name: str, schema: Json) -> str:
    text = f"\n### {name}\n\n{prose(schema.get('description'))}\n"
    if "enum" in schema:
        return f"{text}\nOne of {kind(schema)}.\n"
    required = set(schema.get("required", ()))
    rows = [
        (
            f"`{field}`",
            kind(part),
            "required" if field in required else code(part.get("default")),
            part.get("description", ""),
        )
        for field, part in schema.get("properties", {}).items()
    ]
    return text + ("\n" + table(("field", "type", "default", "meaning"), rows) if rows else "")


def _error_codes() -> list[tuple[str, str]]:
    """Code and status of every error class of the service, and of every code given where one is raised."""
    classes: dict[str, str] = {}
    found = dict.fromkeys((*FIELD_CODES.values(), "unknown_parameter", "validation_failed"), "422")
    found |= {"unsupported_media_type": "415", "client_gone": "400", "method_not_allowed": "405", "internal": "500"}
    for node in _nodes(ast.ClassDef):
        for line in node.body:
            if isinstance(line, ast.Assign) and isinstance(line.value, ast.Tuple) and len(line.value.elts) == 3:
                status, text, _title = (ast.literal_eval(item) for item in line.value.elts)
                classes[node.name] = found[text] = str(status)
    for call in _nodes(ast.Call):
        given = next((word.value for word in call.keywords if word.arg == "code"), None)
        if isinstance(call.func, ast.Name) and call.func.id in classes and isinstance(given, ast.Constant):
            found.setdefault(str(given.value), classes[call.func.id])
    return [(f"`{text}`", status) for text, status in sorted(found.items())]


def _codes(classes: Iterable[str]) -> Iterator[str]:
    """Codes among the arguments of calls to some classes."""
    for call in _nodes(ast.Call):
        if isinstance(call.func, ast.Name) and call.func.id in classes:
            for argument in call.args[:2]:
                if isinstance(argument, ast.Constant) and str(argument.value).isidentifier():
                    yield str(argument.value)
                if isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
                    head = str(argument.values[0].value)
                    yield from (f"{head}{part}" for part in ("prompt", "answer") if head == "missing_")


def _nodes(wanted: type[Node]) -> Iterator[Node]:
    for path in sorted(APP.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield from (node for node in ast.walk(tree) if isinstance(node, wanted))
