import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mergesearch.errors import InputError
from mergesearch.runs import Documents
from mergesearch.scores import DocumentScore
from mergesearch.tasks import BuiltTask

MODEL, TASK = "5d41402abc4b2a76b9719d911017c592", "9f86d081884c7d659a2feaa0c55ad015" * 2

VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
    st.lists(
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-5, 5),
            st.text(max_size=5),
            st.lists(st.text(max_size=5), max_size=2),
        ),
        max_size=3,
    ),
)
MARGINS = st.one_of(st.none(), st.floats(-1000, 1000))
BLOCKS = st.lists(
    st.dictionaries(
        st.integers(0, 10**6), st.builds(DocumentScore, VALUES, MARGINS), min_size=1, max_size=6
    ),
    max_size=4,
)


def accuracies(ids: Any, seed: int = 0) -> dict[int, DocumentScore]:
    draw = random.Random(seed)
    margins = {i: draw.gauss(0.4, 1.5) for i in ids}
    return {i: DocumentScore(float(margin > 0), margin) for i, margin in margins.items()}


# every document is synced to the disk: beside a busy process, that takes what it takes
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(blocks=BLOCKS)
def test_values_are_read_as_they_were_and_margins_to_six_digits(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[dict[int, DocumentScore]]
) -> None:
    folder = tmp_path_factory.mktemp("documents")
    written = Documents(folder)
    expected: dict[int, DocumentScore] = {}
    for block in blocks:
        written.add(MODEL, TASK, block)
        expected |= block
    for documents in (written, Documents(folder), Documents(folder, writable=False)):
        found = documents.known(MODEL, TASK)
        assert found.keys() == expected.keys()
        for i, score in found.items():
            assert repr(score.value).lstrip("-") == repr(expected[i].value).lstrip("-")
            assert score.value == expected[i].value
            margin = expected[i].margin
            if margin is None:
                assert score.margin is None
            else:
                assert score.margin is not None
                assert math.isclose(score.margin, margin, rel_tol=5.0001e-6)
    assert written.n_added == sum(map(len, blocks))


def test_models_and_tasks_are_told_apart(tmp_path: Path) -> None:
    documents = Documents(tmp_path)
    keys = [(f"model {i}", f"task {j}") for i in range(7) for j in range(5)]
    for n, key in enumerate(keys):
        assert documents.known(*key) == {}
        documents.add(*key, {n: DocumentScore(n / 7)})
    for found in (documents, Documents(tmp_path)):
        for n, key in enumerate(keys):
            assert found.known(*key) == {n: DocumentScore(n / 7)}
    assert Documents(tmp_path).n_added == 0


def test_a_store_of_one_model_goes_by_the_fingerprint_of_the_task(tmp_path: Path) -> None:
    ids = (SimpleNamespace(fingerprint=f) for f in "fg")
    task, other = (cast(BuiltTask, SimpleNamespace(id=task_id)) for task_id in ids)
    documents = Documents(tmp_path)
    store = documents.of("model")
    assert store.known(task) == {}
    store.add(task, {3: DocumentScore(1.0, -2.5)})
    store.add(task, {0: DocumentScore(0.0, 0.5)})
    assert store.known(task) == {0: DocumentScore(0.0, 0.5), 3: DocumentScore(1.0, -2.5)}
    assert store.known(other) == {} == documents.of("another").known(task)
    assert documents.known("model", "f") == store.known(task)


@pytest.mark.parametrize(("n_blocks", "most"), [(1, 6), (5, 10)])
def test_an_accuracy_with_its_margin_takes_a_few_bytes(
    tmp_path: Path, n_blocks: int, most: int
) -> None:
    documents = Documents(tmp_path)
    ids = random.Random(1).sample(range(200), 200)
    for k in range(n_blocks):
        documents.add(MODEL, TASK, accuracies(ids[k::n_blocks], seed=k))
    assert (tmp_path / "documents.bin").stat().st_size < most * 200


def test_a_block_cut_at_any_byte_is_scored_again_and_no_other(tmp_path: Path) -> None:
    documents = Documents(tmp_path)
    documents.add(MODEL, TASK, accuracies(range(5)))
    file = tmp_path / "documents.bin"
    start, first = file.stat().st_size, dict(documents.known(MODEL, TASK))
    documents.add(MODEL, TASK, accuracies(range(5, 10)))
    both, whole = dict(documents.known(MODEL, TASK)), file.read_bytes()
    for size in range(start, len(whole)):
        file.write_bytes(whole[:size])
        again = Documents(tmp_path)
        assert again.known(MODEL, TASK) == first
        again.add(MODEL, TASK, accuracies(range(5, 10)))
        assert again.known(MODEL, TASK) == both
        assert file.read_bytes() == whole


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    documents = Documents(tmp_path)
    for i in range(3):
        documents.add(MODEL, TASK, accuracies([i]))
    data = bytearray((tmp_path / "documents.bin").read_bytes())
    data[50] ^= 1
    (tmp_path / "documents.bin").write_bytes(data)
    with pytest.raises(InputError, match=r"documents\.bin is damaged at byte 8, and not by a kill"):
        Documents(tmp_path)
