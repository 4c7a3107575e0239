"""An exported model on the hub: its files, card and page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mergesearch.errors import InputError
from mergesearch.exporting.checkpoint import RECIPE_FILE
from mergesearch.exporting.evaluations import RESULTS_FOLDER
from mergesearch.exporting.export import best_of, export
from mergesearch.exporting.published import published
from mergesearch.recipe import load_recipe
from mergesearch.runs import Record, is_run

_CARD = "README.md"
#: One of these makes a folder a model: a checkpoint, an adapter, a GGUF file.
_WEIGHTS = ("*.safetensors", "*.gguf")


@dataclass(frozen=True)
class Upload:
    """A model as it is uploaded, or would be."""

    repo_id: str
    folder: Path
    #: Sizes in bytes by the path in the repository.
    files: dict[str, int]
    #: The card, metadata first.
    card: str
    #: The page of the repository; None where nothing was uploaded.
    url: str | None = None


def push(
    source: Path,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    base_models: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Upload:
    """Upload a run's winner, or an exported folder, to a repository of the hub.

    The card and what belongs to a run come first, the weights after them. An upload that was
    interrupted goes on when it is begun again: what the hub has is not sent twice. The token is the
    one that huggingface_hub finds, and it goes nowhere else.

    Args:
        source: a run's folder, of which `export/top-1` is taken, and written if it is not there;
            or a folder that was exported.
        repo_id: "owner/name"; the repository is made where there is none.
        private: of a repository that is made.
        dry_run: check all that can be checked here, and upload nothing.
        base_models: hub ids for the card's `base_model`, where the models were merged from local
            folders.
        say: is told what begins.

    Raises:
        InputError: no such folder, a wrong card or name, or the hub refuses it.
    """
    _check_name(repo_id)
    folder = _folder_of(source, dry_run, say)
    card, texts = published(folder, _checked_card(folder, base_models), base_models)
    beside = {_CARD: card, **texts, **(_beside(source) if is_run(source) else {})}
    files = {name: len(text.encode()) for name, text in beside.items()}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files.setdefault(path.relative_to(folder).as_posix(), path.stat().st_size)
    upload = Upload(repo_id, folder, files, card)
    if dry_run:
        return upload
    if say is not None:
        say(f"uploading {sum(files.values()) / 1e9:.2f} GB in {len(files)} files to {repo_id}")
    url = _upload(upload, beside, private)
    return Upload(repo_id, folder, files, card, url)


def _check_name(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"no name of a repository: {error}") from None
    if "/" not in repo_id:
        raise InputError(f"a repository is named OWNER/NAME, got {repo_id!r}")


def _folder_of(source: Path, dry_run: bool, say: Callable[[str], None] | None) -> Path:
    """Find the folder that is uploaded, or write that of a run.

    Raises:
        InputError: it holds no exported model.
    """
    folder = source
    if is_run(source):
        folder = source / "export" / "top-1"
        if folder.exists():
            _check_winner(source, folder)
        else:
            if dry_run:
                raise InputError(f"{folder} is not there yet; `mergesearch export {source}` first")
            if say is not None:
                say(f"writing {folder}")
            export(source)
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    if not (folder / _CARD).is_file() or not any(any(folder.glob(w)) for w in _WEIGHTS):
        raise InputError(
            f"{folder} holds no exported model (weights and {_CARD}); write one with `mergesearch "
            "export RUN` or `mergesearch merge RECIPE.yaml OUT_DIR`"
        )
    return folder


def _check_winner(run: Path, folder: Path) -> None:
    """Refuse an export of a model that is no longer the run's best.

    Raises:
        InputError: it is, with both hashes.
    """
    record = Record(run, writable=False)
    ((_, wanted),) = best_of(run, record, 1)
    path = folder / RECIPE_FILE
    if not path.is_file():
        return  # what it lacks is said hereafter
    try:
        best, there = record.recipe(wanted), load_recipe(path)
    except InputError as error:
        raise InputError(
            f"{folder} cannot be compared with the run's best model: {error}; push the folder by "
            "its own name"
        ) from None
    # an export spells its dtypes out
    there = there.model_copy(update={"dtype": best.dtype, "out_dtype": best.out_dtype})
    if there.hash != best.hash:
        raise InputError(
            f"{folder} is not the run's best model, {wanted[:12]}: the search went on after the "
            "export; remove the folder, and the same command writes it anew, or push it by its own "
            "name"
        )


def _beside(run: Path) -> dict[str, str]:
    """Write what goes up beside a run's model, by the name of the file."""
    from mergesearch.report import artifacts

    return artifacts(run)


def _checked_card(folder: Path, base_models: Sequence[str]) -> str:
    """Read a folder's card and results as huggingface_hub does.

    Args:
        folder: of the model.
        base_models: in place of the card's, if there are any.

    Raises:
        InputError: it cannot read them.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub import parse_eval_result_entries as parse

    for base in base_models:
        _check_name(base)
    try:
        card = ModelCard((folder / _CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{folder / _CARD}: {_line(error)}") from None
    for file in sorted((folder / RESULTS_FOLDER).glob("*.yaml")):
        try:
            parse(yaml.safe_load(file.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise InputError(f"{file}: no results as the hub reads them: {_line(error)}") from None
    if base_models:
        card.data["base_model"] = list(base_models)
        card.data["base_model_relation"] = card.data.get("base_model_relation", "merge")
    return str(card)


def _upload(upload: Upload, beside: dict[str, str], private: bool) -> str:
    """Make the repository where it is not there, and upload texts, then the folder.

    Raises:
        InputError: the hub cannot be reached, or refuses; its reason in a line.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HTTPError

    api = HfApi()
    texts = [CommitOperationAdd(name, text.encode()) for name, text in beside.items()]
    try:
        url = api.create_repo(upload.repo_id, private=private, exist_ok=True)
        api.create_commit(upload.repo_id, texts, commit_message="Card of a merge by mergesearch")
        api.upload_folder(
            repo_id=upload.repo_id,
            folder_path=upload.folder,
            ignore_patterns=list(beside),
            commit_message="Weights of a merge by mergesearch",
        )
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        raise InputError(
            f"{upload.repo_id} cannot be uploaded to {constants.ENDPOINT}{offline}: "
            f"{_line(error)}; the same command goes on where it stopped"
        ) from None
    return str(url)


def _line(error: Exception) -> str:
    """Give an error's reason in one line, without the user's token."""
    from huggingface_hub import get_token

    text = " ".join(str(error).split()) or type(error).__name__
    token = get_token()
    return text.replace(token, "…") if token else text
