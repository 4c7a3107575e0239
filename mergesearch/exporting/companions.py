"""Companions of a checkpoint's weights: tokenizer, processors, code, licence."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from mergesearch.errors import InputError
from mergesearch.parents import Parents, load_tokenizer, read_json
from mergesearch.recipe import AUTO, CHAT_TEMPLATES, Recipe

#: Files by suffix, and others by how their names begin. Weights, and what a hub adds, are none.
_SUFFIXES = frozenset(
    {".bpe", ".codes", ".jinja", ".json", ".model", ".py", ".spm", ".tiktoken", ".tokenizer"}
    | {".txt", ".vocab"}
)
_BEGINNINGS = (
    *("license", "licence", "notice", "copying", "use_policy", "acceptable_use", "terms"),
    *("tokenizer.", "vocab."),
)
#: Written for each model anew, or true of the first model's own weights or training only.
_OWN = """
adapter_config.json all_results.json config.json eval_results.json generation_results.json
params.json quantize_config.json requirements.txt train_results.json trainer_state.json
training_args.json
"""
_NOT_COPIED = frozenset(_OWN.split())
_TEMPLATE, _MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
#: Files of a tokenizer, some of them under names that are its class's own; another model's would
#: contradict it.
_TOKENIZER = frozenset(
    f"""
    added_tokens.json chat_template.json merges.txt sentencepiece.bpe.model special_tokens_map.json
    spiece.model tekken.json tokenizer.json tokenizer.model tokenizer_config.json vocab.json
    vocab.txt {_TEMPLATE}
    """.split()
)
_GENERATION = "generation_config.json"
#: Words, numbers, signs, several scripts and spaces: where tokenizers differ, they differ here.
_PAGE = """\
The quick brown fox, 1,234.56 of them — "don't!" (e.g. <tag> & C++).
    def f(x):\n\treturn x ** 2  # 日本語、中文、한국어, русский, العربية, हिन्दी, ελληνικά
Größe naïve café Ångström 🙂👩‍💻 ½ ² ﬁ \u200b\u00a0 ... https://example.org/a_b?c=d#e
"""


def write_companions(parents: Parents, folder: Path) -> None:
    """Put what stands beside the first model's weights into a folder.

    The tokenizer is another model's where the recipe names one, or an adapter's where that has one,
    and written anew where it has tokens that this lacks. Code is copied, and never run.

    Raises:
        InputError: the tokenizer that was written is not the model's.
    """
    source, own = parents.folder, parents.tokenizer_folder
    extended = parents.alignment.extends_tokenizer
    replaced: set[str] = set()
    if extended:
        parents.alignment.write_tokenizer(folder)
    if extended or own != source:
        names = load_tokenizer(folder if extended else own).vocab_files_names.values()
        replaced = {*_TOKENIZER, *names}
    files = [file for file in _companions(source) if file.name not in replaced]
    if not extended:
        files += [own / name for name in sorted(replaced) if (own / name).is_file()]
    if not replaced:
        files += [own / name for name in _named_by_class(own) if own / name not in files]
    for file in files:
        shutil.copy(file, folder / file.name)
    for file in _code_below(source, files):
        target = folder / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    if own != source and (settings := folder / _GENERATION).is_file():
        moved = parents.alignment.with_ids(read_json(settings), _GENERATION)
        settings.write_text(json.dumps(moved, indent=2) + "\n")
    if extended:
        return
    if (own / _MORE_TEMPLATES).is_dir():
        shutil.copytree(own / _MORE_TEMPLATES, folder / _MORE_TEMPLATES, dirs_exist_ok=True)
    _check_tokenizer(own, folder)


def chat_template(recipe: Recipe, parents: Parents) -> str | None:
    """Give the chat template that a recipe asks for; None for that of the tokenizer.

    "auto" is the one that most models have, of several the first.

    Raises:
        InputError: "auto", and no model has one.
    """
    if recipe.chat_template != AUTO:
        return CHAT_TEMPLATES.get(recipe.chat_template or "", recipe.chat_template)
    folders = [parents.checkpoint(ref).tokenizer_folder for ref in parents.models]
    found = Counter(text for folder in folders if (text := _template_of(folder)) is not None)
    if not found:
        raise InputError(
            f"chat_template: auto takes what most models have, and none of {len(folders)} has one; "
            f"name one of {', '.join(CHAT_TEMPLATES)}, or give a Jinja template"
        )
    return found.most_common(1)[0][0]


def write_chat_template(text: str, folder: Path) -> None:
    """Make a text the only chat template of a folder, wherever it had others."""
    shutil.rmtree(folder / _MORE_TEMPLATES, ignore_errors=True)
    (folder / "chat_template.json").unlink(missing_ok=True)
    for name in ("tokenizer_config.json", "processor_config.json"):
        if (file := folder / name).is_file() and "chat_template" in (settings := read_json(file)):
            del settings["chat_template"]
            file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / _TEMPLATE).write_text(text, encoding="utf-8")


def _companions(folder: Path) -> Iterator[Path]:
    """List the files of a checkpoint that a merge of it needs as well."""
    for file in sorted(folder.iterdir()):
        name = file.name.lower()
        if not file.is_file() or name in _NOT_COPIED or ".index." in name:
            continue
        if not name.startswith(".") and (
            file.suffix.lower() in _SUFFIXES or name.startswith(_BEGINNINGS)
        ):
            yield file


def _named_by_class(source: Path) -> list[str]:
    """List the files that a tokenizer's class asks for, under names of its own."""
    if (source / "tokenizer.json").is_file():
        return []  # which has it all
    try:
        names = load_tokenizer(source).vocab_files_names.values()
    except InputError:
        return []
    return [name for name in names if (source / name).is_file()]


def _code_below(folder: Path, settings: Iterable[Path]) -> Iterator[Path]:
    """List the code in the subfolders that an `auto_map` names a module of."""
    read = (read_json(file) for file in settings if file.name.endswith("_config.json"))
    for of in (read_json(folder / "config.json"), *read):
        mapped = of.get("auto_map")
        values = mapped.values() if isinstance(mapped, dict) else ()
        for name in (n for v in values for n in (v if isinstance(v, list) else [v])):
            path = PurePosixPath(str(name).rpartition("--")[2].rpartition(".")[0])
            # beside the weights lies what was copied already, and elsewhere what is not the model's
            if len(path.parts) > 1 and not path.is_absolute() and ".." not in path.parts:
                yield from sorted((folder / path.parts[0]).rglob("*.py"))


def _template_of(folder: Path) -> str | None:
    """Read a model's chat template: a file, or a part of the tokenizer's settings."""
    if (folder / _TEMPLATE).is_file():
        return (folder / _TEMPLATE).read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    template = read_json(settings).get("chat_template") if settings.is_file() else None
    if isinstance(template, list):  # several, by name
        every = [t for t in template if isinstance(t, dict)]
        named = [t.get("template") for t in every if t.get("name") == "default"]
        template = named[0] if named else None
    return template if isinstance(template, str) else None


def _check_tokenizer(source: Path, folder: Path) -> None:
    """Compare the written tokenizer with its source: its words, and a page of text.

    One file that is the same is the same tokenizer. Of what transformers cannot load, as a
    tokenizer with code of its own, nothing is known.

    Raises:
        InputError: it cannot be loaded, or gives other tokens.
    """
    one, other = (path / "tokenizer.json" for path in (source, folder))
    if one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes():
        return
    try:
        expected = load_tokenizer(source)
    except InputError:
        return
    try:
        found = load_tokenizer(folder)
        same_words = found.get_vocab() == expected.get_vocab()
        is_same = same_words and found(_PAGE)["input_ids"] == expected(_PAGE)["input_ids"]
    except InputError:  # whose folder is there for a moment only
        is_same = False
    if not is_same:
        raise InputError(
            f"{source}: its tokenizer gives other tokens, or none, once it is copied; which file "
            "does it need beside the weights?"
        )
