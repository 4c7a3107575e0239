"""The suite of an `evals/*.yaml`: tasks to search on, to learn from, and held out."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator

from mergesearch.config import Config, parse, read_yaml
from mergesearch.errors import InputError


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


Folders = Annotated[
    tuple[Path, ...], BeforeValidator(_one_or_many, json_schema_input_type=Path | tuple[Path, ...])
]


class TaskSpec(Config):
    """One lm-eval task, or a group of them, and how it counts."""

    #: Name of an lm-eval task or group: one from `include_path`, or one that lm-eval brings.
    task: str = Field(min_length=1)
    #: Name of one of the task's metrics, or of those that the group aggregates; `metric,filter`
    #: where there are several filters.
    metric: str = Field(min_length=1)
    #: Share of the task in the total score, relative to the other entries of its split; the tasks
    #: of a group divide it among them as lm-eval aggregates them.
    weight: float = Field(default=1.0, gt=0)
    #: Score the first so many documents only, of each task.
    limit: int | None = Field(default=None, ge=1)
    #: Solved examples before each document; None leaves it to the task.
    num_fewshot: int | None = Field(default=None, ge=0)
    #: Render prompts with the tokenizer's chat template.
    apply_chat_template: bool = False
    #: With a chat template: each solved example is a turn of its own.
    fewshot_as_multiturn: bool = True
    #: Name of the parent whose answers are imitated on this task where coefficients are learned
    #: without labels; None takes the one that scores best on it.
    expert: str | None = Field(default=None, min_length=1)


class Suite(Config):
    """Tasks that steer a search, others for its winners, and others to learn from.

    >>> from pathlib import Path
    >>> from mergesearch import load_suite
    >>> suite = load_suite(Path("suite.yaml"))
    >>> [(spec.task, spec.weight, spec.limit) for spec in suite.search]
    [('first', 1.0, None), ('second', 2.0, 8)]
    """

    #: Folders of lm-eval task YAMLs.
    include_path: Folders = ()
    search: tuple[TaskSpec, ...] = Field(min_length=1)
    held_out: tuple[TaskSpec, ...] = ()
    #: A training split: tasks whose documents coefficients may be learned from.
    learn: tuple[TaskSpec, ...] = ()
    #: Take the test sets of well-known benchmarks as tasks of a search too; reports then say so.
    allow_benchmarks: bool = False

    @field_validator("search", "held_out", "learn")
    @classmethod
    def _each_task_once(cls, specs: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
        name, count = max(Counter(spec.task for spec in specs).items(), default=("", 0), key=_count)
        if count > 1:
            raise ValueError(
                f"a task may appear once in a split, but {name!r} appears {count} times; "
                f"give one entry its 'weight'"
            )
        return specs

    @classmethod
    def none(cls) -> "Suite":
        """Make the suite of a space that names none: nothing is scored."""
        return cls.model_construct(search=())

    def resolved(self, folder: Path, where: str) -> Self:
        """Make the suite's `include_path`, relative to a folder, absolute.

        Raises:
            InputError: one of the folders does not exist; `where` begins the message.
        """
        folders = tuple((folder / given).resolve() for given in self.include_path)
        for given, path in zip(self.include_path, folders, strict=True):
            if not path.is_dir():
                raise InputError(
                    f"{where}: include_path: must be a folder, but {str(given)!r} is not one; "
                    f"it is looked up beside the suite, as {path}"
                )
        return self.model_copy(update={"include_path": folders})


def load_suite(path: Path) -> Suite:
    """Read a suite; its `include_path` is relative to the file's own folder.

    Raises:
        InputError: the file is not a valid suite, or a folder in `include_path` does not exist.
    """
    return parse(Suite, read_yaml(path), str(path)).resolved(path.parent, str(path))


def _count(item: tuple[str, int]) -> int:
    return item[1]
