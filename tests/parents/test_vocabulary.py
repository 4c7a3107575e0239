"""Vocabularies that differ: every row of every policy is found by its token."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoTokenizer

from mergesearch.errors import InputError, RecipeError
from mergesearch.merging import plan_merge
from mergesearch.parents import Alignment, Checkpoint, Parents, Policy
from mergesearch.parents.vocabulary import RowMap, Unified, Vocabulary, align, unify
from mergesearch.recipe import ModelRef, read_recipe
from tests import tiny


def model(name: str, tokens: str, n_rows: int | None = None, added: str = "") -> Vocabulary:
    """One token a letter, ids in order."""
    ids = {token: i for i, token in enumerate(tokens)}
    return Vocabulary(name, ids, len(tokens) if n_rows is None else n_rows, frozenset(added))


def sources(unified: Unified) -> list[list[tuple[tuple[int, int], ...]]]:
    return [[m.sources(i) for i in range(unified.n_rows)] for m in unified.maps]


def own(m: int, *rows: int) -> list[tuple[tuple[int, int], ...]]:
    return [((m, row),) for row in rows]


# By hand

BASE = model("base", "abc", 5)
ONE = model("one", "bacx", 6)
TWO = model("two", "ayx", 3)


def test_equal_vocabularies_stay_as_they_are_but_for_padding_in_the_union() -> None:
    for policy, n_rows in (("error", 5), ("base", 5), ("union", 3)):
        found = unify([BASE, model("same", "abc", 5)], policy)  # type: ignore[arg-type]
        assert found.n_rows == n_rows
        assert all(rows.is_prefix for rows in found.maps)
        assert (found.new, found.dropped) == ((), ())
        assert found.n_padding_dropped == 5 - n_rows


def test_error_names_the_first_difference_both_models_and_the_remedy() -> None:
    with pytest.raises(
        InputError,
        match=r"3 tokens in base and 4 in one; they differ first at token 'a', id 0; "
        "set tokenizer_source to base or union",
    ):
        unify([BASE, ONE], "error")
    with pytest.raises(InputError, match=r"has 5 rows in base and 4 in short; set tokenizer_s"):
        unify([BASE, model("short", "abc", 4)], "error")


def test_base_keeps_the_bases_tokens_and_rows_and_says_what_it_drops() -> None:
    found = unify([BASE, ONE, TWO], "base")
    assert found.n_rows == 5
    assert found.tokens == BASE.tokens
    padding = own(0, 3, 4)
    assert sources(found) == [
        own(0, 0, 1, 2, 3, 4),
        own(1, 1, 0, 2) + padding,
        own(2, 0) + own(0, 1, 2) + padding,
    ]
    assert found.dropped == ("x", "y")
    assert found.maps[0].is_prefix


def test_union_appends_what_the_base_lacks_and_has_no_padding() -> None:
    found = unify([BASE, ONE, TWO], "union")
    assert found.new == ("x", "y")
    assert found.tokens == {"a": 0, "b": 1, "c": 2, "x": 3, "y": 4}
    assert found.n_rows == 5
    x_of_both, y_of_two = ((1, 3), (2, 2)), ((2, 1),)
    assert sources(found) == [
        [*own(0, 0, 1, 2), x_of_both, y_of_two],
        [*own(1, 1, 0, 2, 3), y_of_two],
        [*own(2, 0), *own(0, 1, 2), *own(2, 2, 1)],
    ]
    assert found.dropped == ()
    assert found.n_padding_dropped == 2


def test_without_a_base_that_lends_a_token_that_a_model_lacks_is_the_mean_of_the_others() -> None:
    found = unify([BASE, ONE, TWO], "base", base_lends=False)
    b_of_both, c_of_both = ((0, 1), (1, 0)), ((0, 2), (1, 2))
    assert sources(found)[2] == [*own(2, 0), b_of_both, c_of_both, *own(0, 3, 4)]


def test_the_unions_added_tokens_come_after_the_plain_ones() -> None:
    one, two = model("one", "abcxy", added="x"), model("two", "abcyz", added="y")
    assert unify([BASE, one, two], "union").new == ("z", "x", "y")


def test_a_token_past_the_last_row_is_not_in_the_model() -> None:
    cut = model("cut", "abcx", 2)
    assert sources(unify([BASE, cut], "base"))[1] == own(1, 0, 1) + own(0, 2, 3, 4)
    assert unify([BASE, cut], "union").new == ()
    assert sources(unify([cut, ONE], "union"))[0] == own(0, 0, 1) + own(1, 2, 3)
    assert unify([cut, ONE], "base").n_rows == 2
    assert unify([cut, ONE], "base").dropped == ("c", "x")
    with pytest.raises(InputError, match=r"cut has a token 'x' of id 3 and 2 rows, and no other"):
        unify([cut, BASE], "union")


def test_ids_that_no_token_has_keep_the_bases_rows() -> None:
    holes = Vocabulary("holes", {"a": 0, "b": 3}, 6)
    other = model("other", "bax")
    found = unify([holes, other], "union")
    assert found.tokens == {"a": 0, "b": 3, "x": 4}
    assert sources(found) == [own(0, 0, 1, 2, 3) + own(1, 2), own(1, 1) + own(0, 1, 2)
                              + own(1, 0, 2)]  # fmt: skip


# For any vocabularies


@st.composite
def vocabularies(draw: st.DrawFn) -> list[Vocabulary]:
    models = []
    for m in range(draw(st.integers(1, 4))):
        tokens = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True))
        ids = draw(st.permutations(range(len(tokens) + draw(st.integers(0, 2)))))
        n_rows = max(ids[: len(tokens)]) + 1 + draw(st.integers(0, 3))
        added = draw(st.sets(st.sampled_from(tokens)))
        ordered = dict(zip(tokens, ids, strict=False))
        models.append(Vocabulary(f"m{m}", ordered, n_rows, frozenset(added)))
    return models


policies = st.sampled_from(["base", "union"])


@given(vocabularies(), policies, st.booleans())
def test_every_row_is_traced_to_its_token(
    models: list[Vocabulary], policy: Policy, base_lends: bool
) -> None:
    found = unify(models, policy, base_lends=base_lends)
    token_of = {i: token for token, i in found.tokens.items()}
    names = [{i: token for token, i in m.tokens.items()} for m in models]
    for m, rows in enumerate(found.maps):
        assert len(rows.own) == found.n_rows
        for i in range(found.n_rows):
            origins = rows.sources(i)
            for place, row in origins:
                assert 0 <= row < models[place].n_rows
                if i in token_of:
                    assert names[place][row] == token_of[i]
                else:
                    assert row == i
                    assert place == 0 or models[place].tokens == models[0].tokens
            if token_of.get(i) in models[m].rows:
                assert [place for place, _ in origins] == [m]


@given(vocabularies(), policies)
def test_no_token_is_lost_unless_it_is_said(models: list[Vocabulary], policy: Policy) -> None:
    found = unify(models, policy)
    everything = {token for m in models for token in m.rows}
    kept = {token for token, i in found.tokens.items() if i < found.n_rows}
    assert everything == kept | set(found.dropped)
    assert kept.isdisjoint(found.dropped)
    assert set(found.new) == kept - set(models[0].tokens)
    assert models[0].tokens.items() <= found.tokens.items()
    assert len(set(found.tokens.values())) == len(found.tokens)
    if policy == "base":
        assert (found.n_rows, found.new) == (models[0].n_rows, ())
    else:
        assert found.dropped == ()
    gathered = [row for row in found.maps[0].own if row >= 0]
    assert models[0].n_rows == len(gathered) + found.n_padding_dropped
    lost = set(range(models[0].n_rows)) - set(gathered)
    assert lost.isdisjoint(models[0].tokens.values())


@given(vocabularies(), st.randoms(use_true_random=False), policies)
def test_permuted_ids_are_undone(models: list[Vocabulary], random: Any, policy: Policy) -> None:
    base = models[0]
    tensor = torch.arange(2.0 * base.n_rows).view(-1, 2)
    order = list(base.tokens.values())
    random.shuffle(order)
    moved = tensor.clone()
    moved[order] = tensor[list(base.tokens.values())]
    other = Vocabulary("other", dict(zip(base.tokens, order, strict=True)), base.n_rows)
    found = unify([base, other], policy)
    aligned = [align(t, rows, [tensor, moved].__getitem__)
               for t, rows in zip([tensor, moved], found.maps, strict=True)]  # fmt: skip
    assert torch.equal(*aligned)
    assert torch.equal(aligned[0], tensor[: found.n_rows])


# Tensors


def aligned(tensors: Sequence[Tensor], rows: RowMap) -> Tensor:
    return align(tensors[rows.model], rows, tensors.__getitem__)


def test_rows_are_gathered_lent_and_averaged() -> None:
    tensors = [torch.arange(2.0 * n).view(-1, 2) + 100 * m for m, n in enumerate((5, 6, 3))]
    base, one, two = tensors
    found = unify([BASE, ONE, TWO], "union")
    before = [t.clone() for t in tensors]
    x = (one[3] + two[2]) / 2
    for m, expected in enumerate(
        (
            [base[0], base[1], base[2], x, two[1]],
            [one[1], one[0], one[2], one[3], two[1]],
            [two[0], base[1], base[2], two[2], two[1]],
        )
    ):
        assert torch.equal(aligned(tensors, found.maps[m]), torch.stack(expected))
        bias = [t[:, 0] for t in tensors]
        assert torch.equal(aligned(bias, found.maps[m]), torch.stack(expected)[:, 0])
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


def test_nothing_is_copied_where_nothing_moves() -> None:
    tensor = torch.rand(5, 2)
    same = unify([BASE, model("same", "abc", 5)], "base").maps[1]
    assert align(tensor, same, lambda m: pytest.fail(f"{m} was read")) is tensor
    cut = align(tensor, unify([BASE], "union").maps[0], lambda m: pytest.fail(f"{m} was read"))
    assert cut.data_ptr() == tensor.data_ptr()
    assert torch.equal(cut, tensor[:3])


def test_the_dtype_is_wide_enough_for_every_row_and_no_wider() -> None:
    half = [torch.rand(n, 2).bfloat16() for n in (5, 6, 3)]
    union = unify([BASE, ONE, TWO], "union")
    assert [aligned(half, rows).dtype for rows in union.maps] == [
        torch.float32,  # the mean of two rows
        torch.bfloat16,
        torch.bfloat16,
    ]
    mixed = [half[0], half[1], half[2].float()]
    assert aligned(mixed, union.maps[1]).dtype == torch.float32
    assert torch.equal(aligned(mixed, union.maps[1])[4], mixed[2][1])
    sixteen = [half[0].half(), half[1], half[2]]
    assert aligned(sixteen, union.maps[2]).dtype == torch.float32


# Checkpoints


def checkpoint(folder: Path, seed: int, n_rows: int, *added: str, **changes: Any) -> Path:
    """A model whose tokenizer has added tokens; one written <x> is special, others are not."""
    words = changes.pop("words", tiny.WORDS)
    tiny.llama(folder, seed, vocab_size=n_rows, **changes)
    tokenizer = tiny.tokenizer(words)
    for token in added:
        special = token.startswith("<")
        tokenizer.add_tokens(AddedToken(token, special=special, normalized=False))
    tokenizer.save_pretrained(folder)
    return folder


def aligned_checkpoints(policy: Policy, *folders: Path, base: bool = True) -> Alignment:
    opened = {ref(folder): Checkpoint(folder) for folder in folders}
    return Alignment(opened, policy, ref(folders[0]) if base else None)


def ref(folder: Path) -> ModelRef:
    value: Any = str(folder)
    return ModelRef.model_validate(value)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("vocabularies")
    options = {"tie_word_embeddings": False, "num_hidden_layers": 1}
    return [
        checkpoint(folder / "base", 0, 40, "<b>", **options),
        checkpoint(folder / "one", 1, 36, "<x>", "<b>", "y", **options),
        checkpoint(folder / "two", 2, 34, words=[*tiny.WORDS[::-1], "w0w", "y"], **options),
    ]


def read(ref: ModelRef, name: str) -> Tensor:
    return Checkpoint(Path(ref.model.path)).read(name)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_embedding_and_head_follow_their_tokens(folders: list[Path], name: str) -> None:
    alignment = aligned_checkpoints("union", *folders)
    refs = [ref(folder) for folder in folders]
    base, one, two = (read(r, name) for r in refs)
    rows = {r: alignment.aligned(r, name, read) for r in refs}
    assert alignment.vocab_size == 36
    for r in refs:
        assert alignment.specs(r)[name].shape == rows[r].shape == (36, 16)
    w0, b, new, x, y = 4, 32, 33, 34, 35
    assert torch.equal(rows[refs[0]][: b + 1], base[: b + 1])
    assert torch.equal(rows[refs[1]][[w0, b, x, y]], one[[w0, 33, 32, 34]])
    assert torch.equal(rows[refs[2]][w0], two[4 + 27])
    assert torch.equal(rows[refs[2]][b], base[b])
    for r in refs:
        assert torch.equal(rows[r][new], two[32])
        assert torch.equal(rows[r][x], one[32])
    assert torch.equal(rows[refs[0]][y], (one[34] + two[33]) / 2)
    # two embeddings of 36 rows of 16 numbers that are copies, and one more of the base's
    assert alignment.n_bytes == 3 * 36 * 16 * 4
    norm = "model.norm.weight"
    assert torch.equal(alignment.aligned(refs[1], norm, read), read(refs[1], norm))
    assert alignment.config({"vocab_size": 40, "a": 1}) == {"vocab_size": 36, "a": 1}
    assert alignment.notes == (
        "tokenizer_source union: 3 tokens ('w0w', '<x>', 'y') that the base lacks, taken from the "
        "other models",
        "tokenizer_source union: 7 rows of the base without a token, left out; the embedding has "
        "36 rows",
    )


def test_base_drops_loudly(folders: list[Path]) -> None:
    alignment = aligned_checkpoints("base", *folders)
    assert alignment.vocab_size == 40
    assert not alignment.extends_tokenizer
    assert alignment.notes == (
        "tokenizer_source base: 3 tokens ('<x>', 'y', 'w0w') that the base lacks, dropped from the "
        "other models; set tokenizer_source to union to keep all",
    )
    with pytest.raises(InputError, match=r"33 tokens in .*base and 35 in .*one; they differ first"):
        aligned_checkpoints("error", *folders)


def test_the_merged_tokenizer_has_the_planned_ids_and_the_flags_of_whoever_added_a_token(
    folders: list[Path], tmp_path: Path
) -> None:
    alignment = aligned_checkpoints("union", *folders)
    assert alignment.extends_tokenizer
    alignment.write_tokenizer(tmp_path)
    merged = AutoTokenizer.from_pretrained(tmp_path)
    base = AutoTokenizer.from_pretrained(folders[0])
    assert len(merged) == 36
    assert merged.get_vocab().items() > base.get_vocab().items()
    assert [merged.get_vocab()[token] for token in ("w0w", "<x>", "y")] == [33, 34, 35]
    special = {token.content: token.special for token in merged.added_tokens_decoder.values()}
    assert (special["w0w"], special["<x>"], special["y"]) == (False, True, False)
    text = "w1 <x> w0w y <b> w27"
    assert merged(text).input_ids == [5, 34, 33, 35, 32, 31]
    assert merged.decode([5, 34, 32], skip_special_tokens=True) == "w1"
    assert (merged.pad_token, merged.eos_token) == (base.pad_token, base.eos_token)


def test_a_token_that_another_model_added_becomes_one_in_the_union(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base", 0, 32)
    other = checkpoint(tmp_path / "other", 1, 32, "w3")
    alignment = aligned_checkpoints("union", base, other)
    assert not alignment.changes
    alignment.write_tokenizer(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).added_tokens_decoder[7].content == "w3"


def test_ids_that_come_out_in_another_way_are_refused(folders: list[Path], tmp_path: Path) -> None:
    alignment = aligned_checkpoints("union", *folders)
    path = tmp_path / "tokenizer.json"
    alignment.write_tokenizer(tmp_path)
    assert path.exists()
    from mergesearch.parents.tokenizer import merged_tokenizer

    with pytest.raises(InputError, match=r"'<x>' should be 40 and is 33 once added to .*base"):
        merged_tokenizer(folders[0], [{"content": "<x>"}], {"<x>": 40}, tmp_path)


def test_parents_read_adapters_and_relatives_in_the_merged_vocabulary(
    folders: list[Path], tmp_path: Path
) -> None:
    name = "model.embed_tokens.weight"
    lora = tiny.adapter(tmp_path / "lora", folders[0], 1, target_modules=["embed_tokens"])
    base, adapted, one = ref(folders[0]), ref(Path(f"{folders[0]}+{lora}")), ref(folders[1])
    alone = Parents([base, adapted])
    parents = Parents([base, adapted, one], vocabulary="union", base=base)
    for model in parents.models:
        assert parents.read(model, name).shape == parents.specs(model)[name].shape == (35, 16)
    assert torch.equal(parents.read(adapted, name)[:33], alone.read(adapted, name)[:33])
    assert torch.equal(parents.read(adapted, name)[33:], parents.read(one, name)[33:])
    assert not torch.equal(parents.read(adapted, name)[:33], parents.read(base, name)[:33])
    (row,) = (r for r in parents.memory_plan({}).rows if r.what == "mapping rows by token")
    assert row.n_bytes == 3 * 35 * 16 * 4


def test_a_recipe_that_means_another_vocabulary_is_refused(folders: list[Path]) -> None:
    text = (
        f"merge_method: task_arithmetic\nbase_model: {folders[0]}\n"
        f"models: [{{model: {folders[1]}, parameters: {{weight: 1}}}}]\n"
    )
    plain, base, union = (
        read_recipe(text + end)
        for end in ("", "tokenizer_source: base", "tokenizer: {source: union}")
    )
    parents = Parents.of(union)
    assert plan_merge(union, parents).config["vocab_size"] == 35
    for recipe, wanted in ((plain, "error"), (base, "base")):
        with pytest.raises(RecipeError, match=f"got tokenizer_source {wanted} instead of union; "):
            plan_merge(recipe, parents)
    with pytest.raises(RecipeError, match=r"got models .*base, .*one instead of .*two; open"):
        plan_merge(
            union,
            Parents([*union.models, ref(folders[2])], vocabulary="union", base=union.models[0]),
        )
    with pytest.raises(InputError, match="set tokenizer_source to base or union"):
        Parents.of(plain)
    same = read_recipe(
        f"{{merge_method: passthrough, models: [{{model: {folders[0]}}}], tokenizer_source: base}}"
    )
    assert plan_merge(same, Parents(same.models)).config["vocab_size"] == 40


def test_a_model_without_tokenizer_has_the_bases_if_its_rows_are_as_many(
    folders: list[Path], tmp_path: Path
) -> None:
    silent = checkpoint(tmp_path / "silent", 3, 40, tie_word_embeddings=False, num_hidden_layers=1)
    (silent / "tokenizer.json").unlink()
    alignment = aligned_checkpoints("base", folders[0], silent)
    assert not alignment.changes
    assert not aligned_checkpoints("error", silent, folders[0]).changes
    with pytest.raises(InputError, match=r"36 in .*one; add .*silent/tokenizer\.json"):
        aligned_checkpoints("base", silent, folders[1])
    with pytest.raises(InputError, match=r"36 in .*one; add .*silent/tokenizer\.json") as caught:
        aligned_checkpoints("union", silent, folders[1])
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"union needs .*silent/tokenizer\.json"):
        aligned_checkpoints("union", silent, folders[0])


def test_a_table_that_might_be_indexed_by_token_is_refused_by_name(
    folders: list[Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    odd = checkpoint(tmp_path / "odd", 3, 33, tie_word_embeddings=False, num_hidden_layers=1)
    tensors = load_file(odd / "model.safetensors")
    tensors["extra.head.weight"] = torch.rand(33, 4)
    save_file(tensors, odd / "model.safetensors")
    with pytest.raises(InputError, match=r"odd has extra\.head\.weight \[33, 4\]; give the models"):
        aligned_checkpoints("base", odd, folders[0])
    assert not aligned_checkpoints("base", odd, odd).changes


def test_unigram_pieces_are_tokens_by_their_place(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base", 0, 4)
    for name, pieces in (("base", "ab"), ("other", "bca")):
        folder = tmp_path / name
        if name == "other":
            tiny.llama(folder, 1, vocab_size=4)
        data = json.loads((base / "tokenizer.json").read_text())
        data["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [[p, -1.0] for p in pieces]}
        added = {**data["added_tokens"][0], "content": "<s>", "id": len(pieces)}
        (folder / "tokenizer.json").write_text(json.dumps({**data, "added_tokens": [added]}))
    alignment = aligned_checkpoints("union", base, tmp_path / "other")
    assert alignment.vocab_size == 4
    name = "model.embed_tokens.weight"
    theirs = read(ref(tmp_path / "other"), name)
    found = alignment.aligned(ref(tmp_path / "other"), name, read)
    assert torch.equal(found, theirs[[2, 0, 3, 1]])
