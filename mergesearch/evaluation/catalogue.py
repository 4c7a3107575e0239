"""Finding lm-eval tasks by name, and their data beside their YAML."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from mergesearch.config import unknown
from mergesearch.errors import InputError

#: Values of `dataset_path` that read local files; any other names a data set on the hub.
_FILE_FORMATS = {"arrow", "csv", "json", "parquet", "text"}


class Catalogue:
    """The tasks that a suite may name.

    Args:
        include_path: folders of task YAMLs.
        names: tasks to be found. Indexing the thousands that lm-eval brings takes seconds, so it
            is done only if one of these is not in `include_path`.
    """

    def __init__(self, include_path: Sequence[Path], names: Sequence[str]) -> None:
        folders = [str(folder) for folder in include_path]
        self._manager = TaskManager(include_path=folders, include_defaults=False)
        self._own = self._manager.all_tasks
        if not set(names) <= set(self._own):
            self._manager = TaskManager(include_path=folders, include_defaults=True)

    def task(self, name: str) -> Task:
        """Load a task with its documents.

        Raises:
            InputError: the name is unknown or stands for several tasks, the task's data is
                missing, or the task runs code or reads images.
        """
        entry = self._manager.task_index.get(name)
        if entry is None:
            similar = get_close_matches(name, self._manager.all_subtasks, n=5)
            raise InputError(unknown("task", name, dict.fromkeys([*self._own, *similar])))
        config = entry.cfg or {}
        if name not in self._manager.all_subtasks:
            members = sorted(entry.tags) or [_member(item) for item in config.get("task", [])]
            raise InputError(
                f"{name!r} is a group of tasks, and a suite weighs single ones; "
                f"list them instead: {', '.join(members)}"
            )
        overrides = _located(name, config, entry.yaml_path.parent) if entry.yaml_path else {}
        try:
            # An inline group is lm-eval's way to load a known task with some settings replaced.
            group = {"group": f"group of {name}", "task": [{"task": name, **overrides}]}
            (task,) = self._manager.load(group)["tasks"].values()
        except (IndexError, StopIteration) as error:
            raise InputError(
                f"task {name!r} has no documents, or a choice without text; "
                f"check its data, test_split and process_docs"
            ) from error
        except Exception as error:  # whatever a task's YAML, functions and data raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(f"task {name!r} cannot be loaded: {reason}") from error
        if getattr(task, "UNSAFE_CODE", False):
            raise InputError(f"task {name!r} runs code that a model writes, which is not supported")
        if getattr(task, "MULTIMODAL", False):
            raise InputError(f"task {name!r} reads images or sound, and only text is supported")
        return task


def _member(item: str | dict[str, Any]) -> str:
    return item if isinstance(item, str) else str(item.get("task", item.get("group")))


def _located(task: str, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The task's settings to replace, for data beside its YAML to be found from anywhere."""
    kwargs = dict(config.get("dataset_kwargs") or {})
    if config.get("dataset_path") not in _FILE_FORMATS or not kwargs:
        return {}
    if "data_dir" in kwargs:
        kwargs["data_dir"] = _found(task, kwargs["data_dir"], folder)
    if "data_files" in kwargs:
        base = folder / kwargs.get("data_dir", "")
        kwargs["data_files"] = _found(task, kwargs["data_files"], base)
    return {"dataset_kwargs": kwargs}


def _found(task: str, files: Any, folder: Path) -> Any:
    """The same files, a string or lists or a mapping of them, with those in the folder absolute."""
    if isinstance(files, dict):
        return {split: _found(task, names, folder) for split, names in files.items()}
    if isinstance(files, list):
        return [_found(task, name, folder) for name in files]
    if "://" in files or (Path(files).is_absolute() and "*" in files):
        return files
    beside = folder / files
    if beside.exists() or ("*" in files and any(folder.glob(files))):
        return str(beside.resolve() if beside.exists() else beside)
    if Path(files).exists():
        return files
    raise InputError(
        f"task {task!r}: data file {files!r} does not exist; put it beside the task's YAML, "
        f"in {folder}, or give its absolute path"
    )
