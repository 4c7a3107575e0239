"""The way of a score through the rooms: tasks ask, an engine answers, tasks grade."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import PreTrainedModel

import mergesearch
from mergesearch.evaluation import Evaluator
from mergesearch.tasks import BuiltTask, TaskSpec

PACKAGE = Path(mergesearch.__file__).parent


def room_of(frame: FrameType | None) -> str | None:
    """The room of the nearest frame of the package, from a frame outwards."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        frame = frame.f_back
    return None


@contextmanager
def entered() -> Iterator[list[tuple[str | None, str]]]:
    """Each step from one room into another, as (from, into)."""
    steps: list[tuple[str | None, str]] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            into, out_of = room_of(frame), room_of(frame.f_back)
            if into is not None and into != out_of:
                steps.append((out_of, into))

    sys.setprofile(watch)
    try:
        yield steps
    finally:
        sys.setprofile(None)


class Kept:
    """A store beside the package, which says in which order it is asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def known(self, task: BuiltTask) -> dict[int, Any]:
        return {}

    def add(self, task: BuiltTask, documents: Any) -> None:
        self.calls.append(f"add {len(documents)} of {task.id.task}")


def test_a_score_enters_each_room_once(
    write_task: Callable[..., Path], build: Callable[..., Evaluator], model: PreTrainedModel
) -> None:
    write_task("t", num_fewshot=1)
    evaluator, store = build(TaskSpec(task="t", metric="acc")), Kept()
    with entered() as steps:
        evaluator.score(model, store=store)
    # no room but the evaluator's own goes into tasks or engines, so none into the other
    into = [(out_of, room) for out_of, room in steps if room in ("tasks", "engines")]
    assert {out_of for out_of, _ in into} == {"evaluation"}
    # which documents and what to ask; load and answer; grade and sum up; unload
    rooms = [room for room, _ in groupby(room for _, room in into)]
    assert rooms == ["tasks", "engines", "tasks", "engines"]
    assert store.calls == ["add 10 of t"]
