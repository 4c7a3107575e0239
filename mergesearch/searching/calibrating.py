"""The prompts of a search, for methods that look at what models compute."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

from mergesearch.calibration import (
    KINDS,
    PROMPTS_FOLDER,
    Texts,
    disk_bytes,
    file_name,
    hash_of,
    n_tokens,
    peak_bytes,
    write_texts,
)
from mergesearch.config import unknown
from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator, lessons
from mergesearch.learning import Curriculum
from mergesearch.merging import Plan
from mergesearch.methods import METHODS
from mergesearch.space import BASE, LEARN, SearchSpace
from mergesearch.tasks.prompt_files import Text, read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mergesearch.tasks import BuiltTask

#: Documents of each task that statistics are computed from, at most.
_DOCUMENTS = 100


@dataclass(frozen=True)
class CalibrationTexts:
    """The prompts of each parent, and the statistics that are computed from them."""

    #: As methods' rows name them.
    kinds: tuple[str, ...]
    #: By the parent's name; and the base's where it is merged as a model like the others.
    texts: Mapping[str, Texts]
    #: Tasks whose documents are those that candidates are scored on.
    searched: tuple[str, ...] = ()
    #: By task, those of the documents that a search's limits leave over: not to be scored any more.
    apart: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def n_answers(self) -> int:
        """Answers that all statistics take."""
        n_all = sum(map(len, self.texts.values()))
        own = sum(KINDS[kind].n_answers * n_all for kind in self.kinds if kind != "activation")
        return own + (len(self._every) if "activation" in self.kinds else 0)

    def disk_bytes(self, plan: Plan) -> int:
        """Bound what statistics of models of a plan take on disk."""
        return disk_bytes(self.kinds, plan, len(self.texts))

    def peak_bytes(self, plan: Plan, tokenizer: "PreTrainedTokenizerBase") -> int:
        """Bound what is held while they are computed, the live model aside.

        Raises:
            InputError: the tokenizer reads no token in a parent's prompts.
        """
        counts: list[list[int]] = []
        for name, of in self.texts.items():
            try:
                counts.append(n_tokens(of, tokenizer))
            except InputError as error:
                raise InputError(f"calibration: {name}: {error}") from None
        if "activation" in self.kinds:
            counts.append(n_tokens(self._every, tokenizer))
        return peak_bytes(self.kinds, plan, max(counts, key=sum), len(self.texts))

    def written(self, space: SearchSpace, run: Path) -> SearchSpace:
        """Write the prompts into a run's folder, and let a space name these files.

        Raises:
            InputError: they cannot be written.
        """
        folder = run.resolve() / PROMPTS_FOLDER
        files = {name: write_texts(of, folder) for name, of in self.texts.items()}
        return space.model_copy(update={"calibration": files})

    @property
    def by_file(self) -> Mapping[str, Texts]:
        """The prompts by the names of the files that `written` writes."""
        return {file_name(of): of for of in self.texts.values()}

    def lines(self) -> Sequence[str]:
        """Say what a user should know of them before the search begins."""
        if not self.searched:
            return ()
        return (
            "statistics are computed from the documents that candidates are scored on, of "
            f"{', '.join(self.searched)}: only held-out scores can be believed; give the suite "
            "learn tasks, or limits that leave documents over",
        )

    @cached_property
    def _every(self) -> Texts:
        return tuple(dict.fromkeys(text for of in self.texts.values() for text in of))


def kinds_of(space: SearchSpace) -> tuple[str, ...]:
    """List the statistics that the methods of a space look at, and AIM.

    Raises:
        InputError: there are none such.
    """
    kinds = dict.fromkeys(kind for name in space.domains for kind in METHODS[name].statistics)
    if odd := [kind for kind in kinds if kind not in KINDS]:
        raise InputError(unknown("statistic of a method", odd[0], KINDS))
    return (*kinds, *(("activation",) if space.aim else ()))


def identity_of(space: SearchSpace) -> Any:
    """Give the prompts' part in a run's identity as JSON; None without prompts.

    Raises:
        InputError: a file of them cannot be read.
    """
    if not kinds_of(space):
        return None
    if not isinstance(space.calibration, Mapping):
        return LEARN  # of a suite, which may change in a run
    return {name: hash_of(read_texts(path)) for name, path in space.calibration.items()}


def calibration_of(space: SearchSpace, evaluator: Evaluator) -> CalibrationTexts | None:
    """Choose the prompts of a space; None where no method of it looks at any.

    Raises:
        InputError: a parent has none, or a file of them cannot be read.
    """
    if not (kinds := kinds_of(space)):
        return None
    own = set(kinds) - {"activation"}
    # where vocabularies differ, the base is one of the models, if of no weight
    models = tuple(space.parents)
    if own and space.tokenizer_source is not None:
        models = (BASE, *models)
    if isinstance(space.calibration, Mapping):
        return CalibrationTexts(kinds, _of_files(space.calibration, models if own else ()))
    return replace(_of_suite(space, evaluator, models), kinds=kinds)


def check_calibration(calibration: CalibrationTexts | None, budget: int | None) -> None:
    """Refuse statistics that spend a search's budget.

    Raises:
        InputError: they are wanted all the same.
    """
    if calibration is not None and budget is not None and calibration.n_answers >= budget:
        raise InputError(
            f"calibration: statistics take {calibration.n_answers:,} answers, of a budget of "
            f"{budget:,} documents; give fewer prompts, or raise the budget"
        )


def statistics_here(folder: Path) -> Path:
    """Give the run's folder of statistics, or a host's own where there is no run."""
    if folder.parent.is_dir():
        return folder
    own = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    return Path(gettempdir()) / f"mergesearch-statistics-{own}"


def set_apart(
    evaluator: Evaluator, curriculum: Curriculum | None, calibration: CalibrationTexts | None
) -> None:
    """Leave out of all search scores what is learned from, or what statistics are of."""
    apart: dict[str, set[int]] = {}
    for one in (curriculum, calibration):
        for task, ids in (one.apart if one is not None else {}).items():
            apart.setdefault(task, set()).update(ids)
    if apart:
        evaluator.set_apart(apart)


def _of_files(files: Mapping[str, Path], models: Iterable[str]) -> dict[str, Texts]:
    texts = {name: read_texts(path) for name, path in files.items()}
    every = tuple(dict.fromkeys(text for of in texts.values() for text in of))
    if lacking := [name for name in models if name not in (*texts, BASE)]:
        raise InputError(
            f"calibration must name the prompts of every parent, and {lacking[0]} has none; add "
            f"{lacking[0]}: FILE"
        )
    return texts | {name: every for name in models if name not in texts}


def _of_suite(space: SearchSpace, evaluator: Evaluator, models: Sequence[str]) -> CalibrationTexts:
    """Take documents: a task's are those of its expert, or else of all models."""
    texts: dict[str, list[Text]] = {name: [] for name in models}
    chosen = lessons(evaluator, _DOCUMENTS).tasks
    for part in chosen:
        of = [text for i in part.doc_ids if (text := _text(part.task, i)) is not None]
        expert = part.task.spec.expert
        for name in models:
            if expert in (None, name) or expert not in space.parents:
                texts[name] += of
    every = [text for of in texts.values() for text in of]
    if not every:
        raise InputError(
            "no task has documents that statistics could be computed from; give the suite learn "
            "tasks, or the space calibration: {PARENT: FILE}"
        )
    sources = {part.task.id.task: part.source for part in chosen}
    return CalibrationTexts(
        kinds=(),
        texts={name: tuple(dict.fromkeys(of or every)) for name, of in texts.items()},
        searched=tuple(name for name, source in sources.items() if source == "search"),
        apart={p.task.id.task: p.doc_ids for p in chosen if p.source == "left over"},
    )


def _text(task: "BuiltTask", doc_id: int) -> Text | None:
    prompt, answer = task.right_text(doc_id)
    if not prompt.strip():
        prompt, answer = answer, ""
    return Text(prompt, answer) if prompt.strip() else None
