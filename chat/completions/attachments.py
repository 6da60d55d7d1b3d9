"""The images and files of a question as they are stored with it. Pure data."""

from chat.completions.request import Content, Part, TextPart, text_of

# Stored data is read with each later question of the conversation, and less than a history may hold.
MAX_STORED_BYTES = 768 * 1024


def for_storage(content: Content, room: int = MAX_STORED_BYTES) -> Content:
    """Return a question as it is stored: with its data as far as there is room. What has none is named in its place."""
    if isinstance(content, str):
        return content
    parts: list[Part] = []
    for part in content:
        size = len(part.data)
        if size > room:
            parts.append(TextPart(text_of([part])))
        else:
            room -= size
            parts.append(part)
    return parts
