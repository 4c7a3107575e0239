"""Keys of a YAML text that hold anchors, which others take by aliases."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

import yaml

#: From this likeness on a key is taken for a misspelling of one that is known.
_LIKE = 0.75


def without_holders(data: Mapping[str, Any], text: str, known: Collection[str]) -> dict[str, Any]:
    """Leave out unknown keys whose values another key takes by an alias.

    A key that is like a known one stays, since it may be misspelt.

    Args:
        data: the text's mapping.
        text: YAML of one document.
        known: the keys that have a meaning.
    """
    odd = {key for key in data if key not in known}
    if not odd or "&" not in text:
        return dict(data)
    held = {key for key in _holders(text) & odd if not _is_like(key, known)}
    return {key: value for key, value in data.items() if key not in held}


def _is_like(key: object, known: Collection[str]) -> bool:
    return bool(difflib.get_close_matches(str(key), known, n=1, cutoff=_LIKE))


def _holders(text: str) -> set[str]:
    """List the keys in whose values anchors lie that later keys take."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return set()
    owner: dict[int, str] = {}
    found = set()
    for key, value in root.value:
        seen: set[int] = set()
        nodes = [value]
        while nodes:  # an alias is the node that its anchor stands at
            node = nodes.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if (holder := owner.setdefault(id(node), key.value)) != key.value:
                found.add(holder)
            if isinstance(node, yaml.SequenceNode):
                nodes += node.value
            elif isinstance(node, yaml.MappingNode):
                nodes += [part for pair in node.value for part in pair]
    return found
