"""The documents of a YAML text, of which mergekit-multi reads several."""

from itertools import pairwise

import yaml


def documents(text: str) -> list[str]:
    """Split a text into its documents, empty ones left out; at least one is given.

    Each keeps the numbers of its lines, by empty lines before it. What is not YAML is one.
    """
    if "---" not in text:
        return [text]
    try:
        events = list(yaml.parse(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, ValueError):  # which whoever reads it will say
        return [text]
    starts = [
        (_place(event), isinstance(content, yaml.ScalarEvent) and not content.value)
        for event, content in pairwise(events)
        if isinstance(event, yaml.DocumentStartEvent)
    ]
    if len(starts) < 2:
        return [text]
    first = (0, 0)  # with the comments before it
    places = [first, *(place for place, _ in starts[1:])]
    ends = [index for index, _ in places[1:]] + [len(text)]
    parts = [
        "\n" * line + text[index:end]
        for (index, line), end, (_, empty) in zip(places, ends, starts, strict=True)
        if not empty
    ]
    return parts or [text]


def _place(event: yaml.Event) -> tuple[int, int]:
    """Give the index and the line of an event's start."""
    mark = event.start_mark
    return (mark.index, mark.line) if mark is not None else (0, 0)
