"""Chat prompts: messages as data sets write them, to messages with exactly `role` and `content`."""

from typing import Any

import orjson

from .drafts import Message, RefusedRowError

ROLES = frozenset({"system", "user", "assistant", "tool"})
_OTHER_NAMES = {"developer": "system", "human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}


def read_chat(value: Any, field: str) -> list[Message]:
    """The messages of a list, or of the JSON text of a list; at least one user turn that says something.

    Accepts `from`/`value` (ShareGPT) for `role`/`content`, and content in text parts.
    Raises RefusedRowError with `bad_messages` or `empty_prompt`.
    """
    if isinstance(value, str):
        value = _parse(value, field)
    if value is None or value == []:
        raise RefusedRowError("empty_prompt", f"field '{field}' holds no messages; give one user turn at least")
    if not isinstance(value, list):
        raise _bad(field, f"holds {type(value).__name__}, not a list of messages")
    messages = [_read_turn(turn, field, place) for place, turn in enumerate(value, 1)]
    said = [turn["content"] for turn in messages if turn["role"] == "user"]
    if not said:
        raise _bad(field, f"has no user turn, only {', '.join(turn['role'] for turn in messages)}")
    if all(not content or content.isspace() for content in said):
        raise RefusedRowError(
            "empty_prompt", f"the user turns of '{field}' are empty; give the problem or remove the row"
        )
    return messages


def chat_in_text(text: str) -> list[Any] | None:
    """The list if the text is a JSON list of objects with roles, as CSV files hold chats; else None."""
    if not text.lstrip().startswith("[{"):
        return None
    try:
        turns = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return turns if all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns) else None


def _parse(text: str, field: str) -> Any:
    if not text or text.isspace():
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _bad(field, f"is text that is not a JSON list of messages ({error})") from None


def _read_turn(turn: Any, field: str, place: int) -> Message:
    if not isinstance(turn, dict):
        raise _bad(field, f"message {place} is {type(turn).__name__}, not an object with role and content")
    role = turn.get("role") or turn.get("from")
    content = turn.get("content", turn.get("value"))
    if type(content) is str and role in ROLES:
        is_clean = len(turn) == 2 and "role" in turn and "content" in turn
        return turn if is_clean else {"role": role, "content": content}
    known = _OTHER_NAMES.get(role, role) if isinstance(role, str) else None
    if known not in ROLES:
        raise _bad(field, f"message {place} has role {role!r}; known are {', '.join(sorted(ROLES))}")
    return {"role": str(known), "content": _read_content(content, field, place)}


def _read_content(content: Any, field: str, place: int) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "\n".join(str(part.get("text", "")) for part in content)
    raise _bad(
        field, f"message {place} has content that is not text ({type(content).__name__}); only text is trained on"
    )


def _bad(field: str, found: str) -> RefusedRowError:
    return RefusedRowError("bad_messages", f"field '{field}': {found}")
