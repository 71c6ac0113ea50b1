"""How a stored prompt becomes the chat that a student sees; the same for rollout and training."""

from collections.abc import Sequence
from typing import Any

from paced.wire import Message, Profile, Prompt


def chat_messages(prompt: Prompt, profile: Profile) -> list[Message]:
    """Messages for the chat template: the profile's system prompt first, its template around the last user turn.

    A system turn of the problem itself wins over the profile's.
    """
    messages = [Message(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt)
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].role == "user":
            content = profile.prompt_template.replace("{prompt}", messages[position].content)
            messages[position] = Message(role="user", content=content)
            break
    has_system = bool(messages) and messages[0].role == "system"
    if profile.system_prompt is not None and not has_system:
        messages.insert(0, Message(role="system", content=profile.system_prompt))
    return messages


def chat_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The text up to where the answer begins: the tokenizer's chat template, or plain turns where it has none."""
    if getattr(tokenizer, "chat_template", None):
        turns = [message.model_dump() for message in messages]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    return "\n\n".join(message.content for message in messages) + "\n"
