"""Methods that look at what models compute, in a search."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mergesearch import export, merge, search
from mergesearch.cli.app import app
from mergesearch.errors import InputError
from mergesearch.recipe import Recipe, load_recipe
from mergesearch.runs import Record
from mergesearch.runtime import Runtime
from mergesearch.searching import open_run, open_search, prepare
from mergesearch.searching.setup import Shared, start_worker, worker_of
from mergesearch.space import SearchSpace
from tests import tiny
from tests.searching.watch import Killed, RecordingObserver, load

#: Documents of `first`, which has no limit, and of `second` that its limit of 8 leaves over.
N_TEXTS = 12 + 4
METHODS: dict[str, Any] = {"regmean": {}, "fisher": {}}


class DyingObserver(RecordingObserver):
    """Kills a search once some statistics are there."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def stage(self, text: str) -> None:
        super().stage(text)
        if text.startswith(f"{self._kind} from"):
            raise Killed


def looking(family: Path, **changes: Any) -> SearchSpace:
    settings = {"trials": 8, "seed": 3, **changes.pop("search", {})}
    return load(family, **{"methods": METHODS, "search": settings, **changes})


def computed(observer: RecordingObserver) -> list[str]:
    return [line.partition(":")[0] for line in observer.stages if " texts: " in line]


def trials(run: Path) -> list[tuple[str | None, float | None, int]]:
    return [(t.recipe_hash, t.score, t.n_documents) for t in Record(run, writable=False).trials]


def test_statistics_are_computed_once_and_charged_to_their_trial(family: Path) -> None:
    observer, run = RecordingObserver(), family / "run"
    search(looking(family), run, observer=observer, device="cpu")
    assert sorted(computed(observer)) == ["fisher from 32 texts", "gram from 32 texts"]
    most = {t.method: max(o.n_documents for o in observer.trials if o.method == t.method)
            for t in observer.trials}  # fmt: skip
    assert 2 * N_TEXTS < most["regmean"] <= 2 * N_TEXTS + 20
    assert 3 * 2 * N_TEXTS < most["fisher"] <= 3 * 2 * N_TEXTS + 20
    record = Record(run, writable=False)
    assert sum(record.statistics.values()) == record.n_answers_beside == 8 * N_TEXTS
    again = RecordingObserver()
    space = looking(family, search={"trials": 10})
    search(space, run, observer=again, device="cpu")
    assert computed(again) == []


def test_what_is_exported_is_what_was_scored_and_is_rebuilt_elsewhere(family: Path) -> None:
    run = family / "run"
    search(looking(family, aim={"omega": [0.2, 0.6]}), run, device="cpu")
    record = Record(run, writable=False)
    methods = set()
    for trial in record.trials[:5]:
        if trial.recipe_hash is None or trial.method in methods:
            continue
        methods.add(trial.method)
        (folder,) = export(run, trial=trial.number)
        text = (folder / "mergekit_config.yml").read_text()
        first = f"# mergekit has no method {trial.method} and has no key aim: only mergesearch"
        assert text.startswith(first)
        recipe = load_recipe(folder / "mergekit_config.yml")
        assert recipe.calibration is not None
        assert {Path(file.path).parent for file in recipe.calibration} == {folder / "calibration"}
        digest = merge(folder / "mergekit_config.yml", family / f"again-{trial.number}")
        assert digest == record.tensors_of(trial.recipe_hash)  # from the prompts alone
        # its tensors are compared with those that were scored
        (adapter,) = export(run, trial=trial.number, form="lora", rank=8)
        assert (adapter / "adapter_model.safetensors").exists()
    assert methods == {"regmean", "fisher"}


@pytest.mark.parametrize("kind", ["gram", "fisher"])
def test_a_kill_changes_no_trial_and_computes_nothing_twice(family: Path, kind: str) -> None:
    space = looking(family, search={"trials": 50, "documents": 300, "racing": False})
    with open_run(space, family / "whole", observer=(whole := RecordingObserver())) as opened:
        open_search(*opened, whole).run()
    with pytest.raises(Killed):
        search(space, family / "run", observer=DyingObserver(kind), device="cpu")
    after = RecordingObserver()
    with open_run(space, family / "run", observer=after) as opened:
        open_search(*opened, after).run()
    assert not any(line.startswith(kind) for line in computed(after))
    assert trials(family / "run") == trials(family / "whole")


def prompts(family: Path) -> dict[str, str]:
    (family / "one.txt").write_text("w1 w2 w3\nw4 w5\n")
    lines = ({"prompt": "w6 w7", "continuation": " w8"}, "w9 w1")
    (family / "two.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return {"one": "one.txt", "two": "two.jsonl"}


def test_a_space_may_name_prompts(family: Path) -> None:
    observer, run = RecordingObserver(), family / "run"
    files = prompts(family)
    search(looking(family, calibration=files), run, observer=observer, device="cpu")
    assert sorted(computed(observer)) == ["fisher from 4 texts", "gram from 4 texts"]
    written = [json.loads(line) for f in sorted((run / "calibration").glob("*.jsonl"))
               for line in f.read_text().splitlines()]  # fmt: skip
    assert {"prompt": "w6 w7", "continuation": " w8"} in written
    assert len(written) == 4
    (family / "one.txt").write_text("w1 w2 w4\n")
    with pytest.raises(InputError, match=r"made by another space \(space.calibration.one was"):
        search(looking(family, calibration=files), run, device="cpu")


def test_a_tasks_documents_are_its_experts(family: Path) -> None:
    suite = tiny.SUITE.replace("metric: acc}", "metric: acc, expert: two, limit: 6}", 1)
    (family / "suite.yaml").write_text(suite)
    setup = prepare(looking(family))
    assert setup.calibration is not None
    # the six of first that its limit leaves over are two's, the four of second are both's
    assert {name: len(of) for name, of in setup.calibration.texts.items()} == {"one": 4, "two": 10}
    assert setup.calibration.searched == ()
    answers = {text.continuation.strip() for text in setup.calibration.texts["two"]}
    assert "" not in answers
    first, second = setup.evaluator.tasks(full=True)
    assert (first.n_documents, second.n_documents) == (6, 8)  # the others are not scored any more


def refused(family: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        search(looking(family, **changes), family / "refused", device="cpu")
    assert "\n" not in str(caught.value)
    assert not (family / "refused").exists()
    return str(caught.value)


def test_bad_input_is_one_line(family: Path) -> None:
    files = prompts(family)
    assert "two has none; add two: FILE" in refused(family, calibration={"one": "one.txt"})
    said = refused(family, calibration={**files, "tow": "one.txt"})
    assert "unknown parent 'tow'; did you mean 'two'?" in said
    assert "no such file of prompts" in refused(family, calibration={**files, "two": "gone.txt"})
    assert "calibration is learn, or a file" in refused(family, calibration="one.txt")
    (family / "one.txt").write_bytes(b"\0\1\2")
    assert "it is binary" in refused(family, calibration=files)
    (family / "one.txt").write_text("\n")
    assert "holds no prompt" in refused(family, calibration=files)
    said = refused(family, methods={"wudi": {"ridge": -0.1}})
    assert "wudi.ridge: ridge must be in [0, ∞), got -0.1" in said.replace("inf", "∞")
    said = refused(family, methods={"regmean": {"alpha": [0.5, 1.5]}})
    assert "alpha must be in [0, 1], got 1.5" in said
    assert "omega must lie in [0, 1]" in refused(family, aim={"omega": [0.5, 2]})
    assert "statistics take 128 answers, of a budget of 100" in refused(
        family, search={"documents": 100}
    )


def test_a_worker_elsewhere_gets_the_prompts_and_keeps_statistics_itself(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a host that has no such run: neither its prompts nor its folder are there."""
    space, runtime = looking(family), Runtime(device="cpu")
    setup = prepare(space, runtime)
    assert setup.calibration is not None
    named = setup.calibration.written(setup.space, family / "run")
    assert isinstance(named.calibration, Mapping)
    recipe = Recipe.model_validate(
        {
            "merge_method": "regmean",
            "slices": [{"sources": [{"model": str(ref)} for ref in space.parents.values()]}],
            "calibration": {str(space.parents[n]): str(f) for n, f in named.calibration.items()},
        }
    )
    here = family / "run" / "calibration"
    merged = worker_of(setup, runtime, here).merge(recipe)
    (family / "run").rename(family / "gone")
    monkeypatch.setattr("mergesearch.searching.calibrating.gettempdir", lambda: str(tmp_path))
    shared = Shared(setup.suite, setup.evaluator.built, None, setup.calibration, here)
    worker = start_worker(space, runtime, shared, 1)
    assert worker.merge(recipe) == merged
    assert not (family / "run").exists()
    for one in merged.statistics:
        folder = worker.statistics(one.key)
        assert folder.parent.parent == tmp_path
        kept = family / "gone" / "calibration" / one.key
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == {
            f.name: f.read_bytes() for f in kept.iterdir()
        }


@pytest.mark.slow
def test_of_several_workers_one_computes_what_all_look_at(family: Path) -> None:
    run = family / "run"
    search(looking(family), run, device="cpu", workers=2)
    record = Record(run, writable=False)
    assert len(record.trials) == 8
    assert not [trial.error for trial in record.trials if trial.error]
    assert sorted(record.statistics.values()) == 2 * [N_TEXTS] + 2 * [3 * N_TEXTS]
    folders = {file.parent.name for file in (run / "calibration").rglob("*.safetensors")}
    assert folders == set(record.statistics)
    # each statistic is charged to one trial
    n_scored = len(record.trials) * sum(t.n_documents for t in record.suite.splits["search"])
    assert sum(trial.n_documents for trial in record.trials) <= n_scored + record.n_answers_beside
    key = next(t.recipe_hash for t in record.trials if t.method == "regmean" and t.recipe_hash)
    assert merge(record.recipe(key), family / "merged") == record.tensors_of(key)


def test_check_says_what_statistics_take(family: Path) -> None:
    looking(family)
    said = CliRunner().invoke(app, ["check", str(family / "space.yaml"), "--device", "cpu"])
    assert said.exit_code == 0, said.output
    (line,) = (line for line in said.output.splitlines() if line.startswith("statistics "))
    assert line == "statistics gram, fisher: 128 answers, at most 0.00 GB on disk"
    assert "statistics are computed from the documents that candidates are scored on" in said.output


def test_disk_holds_no_more_than_was_said(family: Path) -> None:
    methods: dict[str, Any] = {name: {} for name in ("regmean", "regmean_pp", "fisher")}
    space = looking(family, methods=methods, aim={"omega": 0.5}, search={"trials": 12})
    setup = prepare(space)
    assert setup.calibration is not None
    search(space, family / "run", device="cpu")
    files = list((family / "run" / "calibration").rglob("*.safetensors"))
    kinds = len({file.parent for file in files})
    assert kinds == 2 + 2 + 2 + 1
    n_bytes = sum(file.stat().st_size for file in files)
    assert n_bytes <= setup.calibration.disk_bytes(setup.soup)


def test_aim_that_changes_nothing_is_in_no_recipe(family: Path) -> None:
    observer = RecordingObserver()
    space = looking(family, methods={"linear": {}}, aim={}, search={"trials": 6})
    search(space, family / "run", observer=observer, device="cpu")
    assert observer.trials[0].method == "linear (uniform soup)"
    record = Record(family / "run", writable=False)
    recipes = [record.recipe(t.recipe_hash) for t in record.trials if t.recipe_hash]
    assert recipes[0].aim is None and recipes[0].calibration is None
    assert any(recipe.aim for recipe in recipes)
    data = yaml.safe_load((family / "space.yaml").read_text())
    (family / "space.yaml").write_text(yaml.safe_dump(data | {"aim": {"omega": [0.2, 0.6]}}))
    observer = RecordingObserver()
    search(
        SearchSpace.load(family / "space.yaml"), family / "other", observer=observer, device="cpu"
    )
    left = "not in this space, so not tried first: uniform soup, "
    assert any(line.startswith(left) for line in observer.stages)
