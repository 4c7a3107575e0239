from collections.abc import Mapping

import pytest

from mergesearch.diagnosis import Answers, Diagnosis, Pair, Part, markdown, tables_of
from mergesearch.diagnosis.advice import advise, conflicts


def part(
    layer: int | None = 0,
    group: str = "mlp",
    deltas: Mapping[str, float] | None = None,
    cosine: float | None = 0.0,
    overlap: float | None = 0.0,
    chance: float | None = 0.05,
    ranks: float | None = 2.0,
) -> Part:
    deltas = deltas or {"one": 1.0, "two": 1.0}
    pair = Pair(
        first="one",
        second="two",
        cosine=cosine,
        shared=4,
        opposite=2,
        overlap=overlap,
        chance=chance,
    )
    return Part(
        layer=layer,
        group=group,
        n_entries=100,
        base=10.0,
        deltas=deltas,
        ranks=dict.fromkeys(deltas, ranks),
        pairs=(pair,),
    )


def diagnosis(*parts: Part, answers: tuple[Answers, ...] = ()) -> Diagnosis:
    n = len({p.layer for p in parts if p.layer is not None})
    blocks = tuple((i, i + 1) for i in range(n))
    return Diagnosis(
        parents=("one", "two"), n_layers=n, blocks=blocks, parts=parts, answers=answers
    )


def rules(found: Diagnosis) -> list[str]:
    return [advice.rule for advice in advise(found)]


def test_where_nothing_stands_out_nothing_is_said() -> None:
    assert advise(diagnosis(part(), part(1))) == ()
    assert "No rule finds anything to change." in markdown(diagnosis(part()))


def test_a_part_where_deltas_overlap_is_named_with_the_number() -> None:
    found = diagnosis(part(0, overlap=0.1), part(1, overlap=0.3), part(1, "self_attn"))
    (advice,) = advise(found)
    assert advice.rule == "conflict"
    assert str(advice).startswith("mlp, layer 1: one and two (overlap 30%, 5% by chance) ")


def test_an_overlap_that_chance_gives_is_no_conflict() -> None:
    found = diagnosis(
        part(0, overlap=0.52, chance=0.5), part(1, overlap=0.355, chance=0.17), part(2, overlap=0.3)
    )
    assert [(c.row, c.chance) for c in conflicts(found)] == [
        ("mlp, layer 1", 0.17),
        ("mlp, layer 2", 0.05),
    ]


def test_a_parent_that_moves_embeddings_is_named_with_both_shares() -> None:
    layer = part(0, deltas={"one": 3.0, "two": 3.1})
    moved = part(None, "embed_tokens", {"one": 2.0, "two": 0.5})
    (advice,) = advise(diagnosis(layer, moved))
    assert advice.rule == "moved"
    assert str(advice).startswith(
        "one moves embed_tokens: 31% of its delta's square lies there (20.00% of the base's norm), "
        "of the others' at most 3% (two, 5.00%); "
    )


def test_embeddings_that_all_move_and_norms_are_not_named() -> None:
    layer = part(0, deltas={"one": 3.0, "two": 3.1})
    both = part(None, "embed_tokens", {"one": 2.0, "two": 1.9})
    norms = part(None, "norm", {"one": 2.0, "two": 0.5}, ranks=None)
    assert rules(diagnosis(layer, both)) == []
    assert "moved" not in rules(diagnosis(layer, norms))


def test_embeddings_are_not_where_layers_conflict() -> None:
    assert conflicts(diagnosis(part(None, "embed_tokens", overlap=0.9))) == ()


def test_opposite_signs_alone_are_no_conflict() -> None:
    assert rules(diagnosis(part(cosine=-0.5))) == []


def test_a_parent_that_is_the_base_is_left_out() -> None:
    found = diagnosis(part(deltas={"one": 1.0, "two": 0.0}, cosine=None, overlap=None))
    assert [str(advice) for advice in advise(found)] == [
        "two is the base, its delta is 0; leave it out"
    ]


def test_two_parents_that_are_one_are_named() -> None:
    assert rules(diagnosis(part(cosine=0.97))) == ["same"]


def test_the_smaller_of_uneven_deltas_is_named_with_both_sizes() -> None:
    (advice,) = advise(diagnosis(part(deltas={"one": 1.0, "two": 2.0})))
    assert advice.rule == "uneven"
    assert "one changed least (10.00% of the base's norm, two 20.00%)" in str(advice)


def answers(one: float, alone: Mapping[str, float]) -> Answers:
    return Answers(
        task="sums",
        metric="acc",
        higher_is_better=True,
        n_documents=100,
        values={"base": 0.1, "one": one, "two": 0.5},
        best=0.8,
        ahead={"one": {"two": alone["one"]}, "two": {"one": alone["two"]}},
        alone=alone,
    )


def test_a_parent_that_adds_no_answer_is_named() -> None:
    found = diagnosis(part(), answers=(answers(0.8, {"one": 0.3, "two": 0.01}),))
    (advice,) = advise(found)
    assert str(advice).startswith("two leads on no task, and answers at most 1.0%")


def test_agreement_is_in_the_tables() -> None:
    found = diagnosis(part(), answers=(answers(0.8, {"one": 0.3, "two": 0.01}),))
    table = tables_of(found)[-1]
    assert [[cell.text for cell in row] for row in table.rows] == [["sums", "one and two", "69.0%"]]
    assert table.rows[0][-1].number == pytest.approx(0.69)
    assert "## How far the parents agree" in markdown(found)


def test_a_parent_that_leads_or_adds_answers_stays() -> None:
    leads = answers(0.4, {"one": 0.3, "two": 0.0})
    adds = answers(0.8, {"one": 0.3, "two": 0.1})
    none = answers(0.8, {"one": 0.3, "two": 0.0})
    assert rules(diagnosis(part(), answers=(leads, none))) == []
    assert rules(diagnosis(part(), answers=(adds, none))) == []
