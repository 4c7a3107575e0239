"""Finding lm-eval tasks and groups by name, and their data beside their YAML."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory

from mergesearch.config import unknown
from mergesearch.errors import InputError

#: Values of `dataset_path` that read local files; any other names a data set on the hub.
_FILE_FORMATS = {"arrow", "csv", "json", "parquet", "text"}

#: Keys by which a group's YAML defines a task of its own, in place of naming one.
_DEFINES = {"class", "custom_dataset", "dataset_path", "include"}


class Catalogue:
    """The tasks and groups that a suite may name.

    Args:
        include_path: folders of task YAMLs.
        names: tasks and groups to be found. Indexing the thousands that lm-eval brings takes
            seconds, so it is done only if one of these is not in `include_path`.
    """

    def __init__(self, include_path: Sequence[Path], names: Sequence[str]) -> None:
        folders = [str(folder) for folder in include_path]
        self._manager = TaskManager(include_path=folders, include_defaults=False)
        self._own = self._manager.all_tasks
        if not {*names, *self._members(names)} <= set(self._own):
            self._manager = TaskManager(include_path=folders, include_defaults=True)
        self._manager._factory = _Factory()

    def load(self, name: str) -> Task | Group:
        """Load a task with its documents, or a group with all of its tasks.

        Raises:
            InputError: the name is unknown or a tag, a task's data is missing, or a task runs code
                or reads images.
        """
        index = self._manager.task_index
        for wanted in (name, *self._members([name])):
            if wanted not in index:
                known = [*self._own, *get_close_matches(wanted, self._manager.all_tasks, n=5)]
                where = "" if wanted == name else f"group {name!r}: "
                raise InputError(where + unknown("task", wanted, dict.fromkeys(known)))
        if name in self._manager.all_tags:
            raise InputError(
                f"{name!r} is a tag of tasks, which has no score of its own; "
                f"list them instead: {', '.join(sorted(index[name].tags))}"
            )
        with _naming("group" if name in self._manager.all_groups else "task", name):
            loaded = self._manager.load(name)
        for member, task in loaded["tasks"].items():
            if getattr(task, "UNSAFE_CODE", False):
                raise InputError(
                    f"task {member!r} runs code that a model writes, which is not supported"
                )
            if getattr(task, "MULTIMODAL", False):
                raise InputError(
                    f"task {member!r} reads images or sound, and only text is supported"
                )
        if name in loaded["groups"]:
            return loaded["groups"][name]
        (task,) = loaded["tasks"].values()
        return task

    def _members(self, names: Sequence[str]) -> list[str]:
        """List what groups name as their members, and these as theirs."""
        members: dict[str, None] = {}
        todo = list(names)
        while todo:
            entry = self._manager.task_index.get(todo.pop())
            new = [name for name in _named(entry.cfg if entry else None) if name not in members]
            members.update(dict.fromkeys(new))
            todo += new
        return list(members)


class _Factory(TaskFactory):
    """lm-eval's own, which finds data beside a YAML and names the task in errors."""

    def _build_task(self, entry: Any, overrides: dict[str, Any] | None) -> Task:
        with _naming("task", entry.name):
            return super()._build_task(entry, overrides)

    def _load_full_config(
        self, entry: Any, overrides: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        config = super()._load_full_config(entry, overrides)
        return _located(entry.name, config, entry.yaml_path.parent) if entry.yaml_path else config


@contextmanager
def _naming(kind: str, name: str) -> Iterator[None]:
    """Turn whatever a task's YAML, functions and data raise into a line that names it."""
    try:
        yield
    except InputError:
        raise
    except (IndexError, StopIteration) as error:
        raise InputError(
            f"{kind} {name!r} has no documents, or a choice without text; "
            f"check its data, test_split and process_docs"
        ) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{kind} {name!r} cannot be loaded: {reason}") from error


def _named(config: Mapping[str, Any] | None) -> Iterator[str]:
    """List the members that a group's settings name, but not those that they define."""
    items = (config or {}).get("task")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, str):
            yield item
        elif not isinstance(item, dict) or item.keys() & _DEFINES:
            continue
        elif isinstance(item.get("task"), list):
            yield from _named(item)
        elif name := item.get("group") or item.get("task"):
            yield name


def _located(name: str, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the data beside a YAML absolute in its settings, and in those of its tasks."""
    config = dict(config)
    if isinstance(config.get("task"), list):
        config["task"] = [
            _located(str(item.get("task", name)), item, folder) if isinstance(item, dict) else item
            for item in config["task"]
        ]
    kwargs = dict(config.get("dataset_kwargs") or {})
    if config.get("dataset_path") not in _FILE_FORMATS or not kwargs:
        return config
    if "data_dir" in kwargs:
        kwargs["data_dir"] = _found(name, kwargs["data_dir"], folder)
    if "data_files" in kwargs:
        base = folder / kwargs.get("data_dir", "")
        kwargs["data_files"] = _found(name, kwargs["data_files"], base)
    return config | {"dataset_kwargs": kwargs}


def _found(task: str, files: Any, folder: Path) -> Any:
    """Make files in a folder absolute: a string, lists or a mapping of them."""
    if isinstance(files, Mapping):
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
