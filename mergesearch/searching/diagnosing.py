"""The diagnosis of a run's parents, made from scores that the run shares."""

from collections.abc import Mapping

from mergesearch.diagnosis import FILE, Diagnosis, diagnose, with_answers
from mergesearch.errors import InputError, MergesearchError
from mergesearch.files import write_whole
from mergesearch.recipe import ModelRef
from mergesearch.runtime import Runtime
from mergesearch.scores import Scores
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.observer import Observer
from mergesearch.searching.setup import SearchSetup

#: Parameters of all models together that are compared without being asked for: some seconds to a
#: minute of one core.
_MOST = 2_000_000_000


def diagnose_run(
    setup: SearchSetup, candidates: CandidateEvaluator, runtime: Runtime, observer: Observer
) -> Diagnosis:
    """Score a run's parents, and keep their diagnosis in its folder.

    Args:
        setup: of an open run.
        candidates: likewise; what it knows costs nothing.
        runtime: where weights are compared.
        observer: is told how far it has come.

    Raises:
        InputError: the memory budget is too small, or a model is no relative of the others.
        CandidateError: a model's weights or scores are NaN or infinite.
    """
    scores = {}
    for name, model in _models(setup).items():
        observer.stage(f"scoring {name} on the search split")
        scores[name] = candidates.score(setup.space.soup([model])).scores
    found = diagnose(setup.space, runtime, observer.stage, scores)
    write_whole(candidates.record.folder / FILE, found.to_json())
    return found


def keep_diagnosis(
    setup: SearchSetup, candidates: CandidateEvaluator, runtime: Runtime, observer: Observer
) -> None:
    """Keep a diagnosis of what is known of a run's parents.

    Where none can be made, that is said. Nothing is scored for it, and what an earlier one says of
    the weights stays. The models that the run keeps in memory are let go of: nothing is to be
    merged after it.

    Args:
        setup: of an open run.
        candidates: likewise; nothing is merged or scored by it hereafter.
        runtime: where weights are compared.
        observer: is told of it, and why there is none if there is none.
    """
    space, path = setup.space, candidates.record.folder / FILE
    models = _models(setup)
    known = {name: candidates.known(space.soup([ref]).hash) for name, ref in models.items()}
    scores = {name: of for name, of in known.items() if of is not None}
    if len(scores) < len(known):
        scores = {}  # a model without a finite score has no place in a table of all
    try:
        found = _known_weights(setup, candidates, scores)
        if found is None:
            n_entries = setup.soup.n_entries * len(models)
            small = n_entries <= _MOST
            if not small:
                observer.stage(
                    f"weights of {n_entries / 1e9:.1f} billion parameters are not compared for the "
                    f"page; mergesearch compare SPACE --out {candidates.record.folder} does it"
                )
            elif space.base is not None:
                observer.stage("comparing the parents' weights")
            setup.parents.reserve({})  # what it keeps would count as the process's
            found = diagnose(space, runtime, lambda line: None, scores, weights=small)
        write_whole(path, found.to_json())
    except (MergesearchError, OSError, RuntimeError) as error:  # torch's want of memory is the last
        observer.stage(f"the page has no new diagnosis of the parents: {_line(error)}")


def _models(setup: SearchSetup) -> Mapping[str, ModelRef]:
    base = {} if setup.space.base is None else {"base": setup.space.base}
    return {**base, **setup.space.parents}


def _known_weights(
    setup: SearchSetup, candidates: CandidateEvaluator, scores: Mapping[str, Scores]
) -> Diagnosis | None:
    """Bring an earlier diagnosis of the weights, if any, up to date in its answers."""
    try:
        known = Diagnosis.of_run(candidates.record.folder)
    except InputError:
        return None  # it is written anew
    if known is None or not known.parts or known.parents != tuple(setup.space.parents):
        return None
    return with_answers(known, scores)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
