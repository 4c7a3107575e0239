"""Losses beside lm-eval's log-likelihoods, and their gradients beside finite differences."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from mergesearch.engines.torch import loss
from mergesearch.engines.torch.batches import likelihood_batches
from mergesearch.engines.torch.engine import TorchEngine
from mergesearch.engines.torch.hflm import Harness
from mergesearch.engines.torch.limits import Limits
from mergesearch.engines.torch.probing import FastPaths
from mergesearch.requests import Generation, LogLikelihood, Request, RollingLogLikelihood

MakeModel = Callable[..., PreTrainedModel]

REQUESTS: list[Request] = [
    LogLikelihood("the sun is", " up"),
    RollingLogLikelihood("a cold wind"),
    LogLikelihood("the sun is", " down"),
    LogLikelihood("", "rain"),
    LogLikelihood("the sun is", " up"),
]


def by_lm_eval(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[float]:
    """lm-eval's log-likelihood of each request."""
    harness = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=1)
    answers = []
    for request in REQUESTS:
        if isinstance(request, RollingLogLikelihood):
            instance = Instance("loglikelihood_rolling", {}, (request.text,), 0)
            (value,) = harness.loglikelihood_rolling([instance], disable_tqdm=True)
        else:
            assert isinstance(request, LogLikelihood)
            texts = request.context, request.continuation
            instance = Instance("loglikelihood", {}, texts, 0)
            ((value, _),) = harness.loglikelihood([instance], disable_tqdm=True)
        answers.append(value)
    return answers


def mamba() -> PreTrainedModel:
    """A model that packs nothing."""
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, state_size=4)
    return MambaForCausalLM(config).eval()


def loaded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> TorchEngine:
    engine = TorchEngine(tokenizer)
    engine.load(model)
    return engine


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3", "mamba"])
@pytest.mark.parametrize("context", [512, 8])
def test_a_loss_is_lm_evals_log_likelihood_negated(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, architecture: str, context: int
) -> None:
    model = mamba() if architecture == "mamba" else make_model(architecture)
    model.config.max_position_embeddings = context  # rolling texts go in windows of so many
    losses = loaded(model, tokenizer).loss(REQUESTS)
    assert losses.shape == (len(REQUESTS),)
    expected = by_lm_eval(model, tokenizer)
    assert (-losses).tolist() == pytest.approx(expected, abs=1e-3)


def test_a_loss_is_in_the_order_of_its_requests(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = loaded(model, tokenizer)
    whole = engine.loss(REQUESTS)
    for request, value in zip(REQUESTS, whole, strict=True):
        assert float(engine.loss([request])) == pytest.approx(float(value), abs=1e-4)


@pytest.mark.parametrize("packs", [True, False])
def test_gradients_are_those_of_finite_differences(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, packs: bool
) -> None:
    """Along a random direction v, (f(w + h v) - f(w - h v)) / 2h is the gradient times v."""
    # the one of the architectures here that computes all of its parts in float64
    model = make_model("gpt2").double().requires_grad_(True)
    if not packs:
        forward = model.forward
        model.forward = lambda input_ids: forward(input_ids=input_ids)
    engine = loaded(model, tokenizer)
    weights = torch.tensor([1.0, 0.5, -2.0, 3.0, 0.25], dtype=torch.float64)

    def total() -> torch.Tensor:
        return engine.loss(REQUESTS) @ weights

    value = total()
    assert value.dtype == torch.float64
    value.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        slope = parameter.grad.clone()
        direction = torch.randn(
            slope.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        )
        assert _slope(total, parameter, direction) == pytest.approx(
            float((slope * direction).sum()), rel=1e-5, abs=1e-6
        )


def _slope(
    total: Callable[[], torch.Tensor], parameter: torch.nn.Parameter, direction: torch.Tensor
) -> float:
    step, values = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2, 1):  # there, to the other side, and back
            parameter.add_(direction, alpha=sign * step)
            values.append(float(total()))
    return (values[0] - values[1]) / (2 * step)


def test_only_parameters_that_require_a_gradient_get_one(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = loaded(model, tokenizer)
    assert not engine.loss(REQUESTS).requires_grad
    bias = model.get_output_embeddings().weight
    bias.requires_grad_(True)
    engine.loss(REQUESTS).sum().backward()
    assert bias.grad is not None
    assert all(p.grad is None for p in model.parameters() if p is not bias)


def test_losses_follow_the_weights_and_answers_have_no_graph(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    model.requires_grad_(True)
    engine = loaded(model, tokenizer)
    asked: Sequence[Request] = REQUESTS * 20  # so that a prefix would pay
    before = engine.loss(asked).detach()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.5)
    after = engine.loss(asked).detach()
    assert not torch.allclose(before, after)
    fresh = loaded(model, tokenizer)
    assert torch.equal(fresh.loss(asked).detach(), after)
    assert all(type(answer) in (float, tuple) for answer in fresh.answer(asked))


def test_what_is_generated_has_no_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match="what is generated has no loss"):
        loaded(model, tokenizer).loss([Generation("a")])


CHOICES: list[Request] = [
    LogLikelihood("the sun is", " up"),
    LogLikelihood("the sun is", " down and cold"),
    LogLikelihood("a wind", " is cold"),
    RollingLogLikelihood("a cold wind is up"),
    LogLikelihood("the sun is", " up"),
]


def logprobs_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, request: Request
) -> torch.Tensor:
    """Log-probabilities where a request is scored, (positions, vocabulary), one by one."""
    harness = Harness(model, copy.deepcopy(tokenizer), 1)
    pairs, _ = harness.encode(cast(Any, [request]))
    found = []
    for context, continuation in pairs:
        ids = torch.tensor([[*context, *continuation[:-1]]])
        logits = model(input_ids=ids).logits[0, len(context) - 1 :]
        found.append(logits.log_softmax(-1))
    return torch.cat(found)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba"])
@pytest.mark.parametrize("context", [512, 16])
def test_a_divergence_is_the_mean_over_scored_positions(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, architecture: str, context: int
) -> None:
    models = [mamba() if architecture == "mamba" else make_model(architecture) for _ in range(2)]
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    for model in models:
        model.config.max_position_embeddings = context
    theirs, ours = (loaded(model, tokenizer) for model in models)
    references = theirs.predictions(CHOICES)
    found = ours.divergence(CHOICES, references)
    for request, value in zip(CHOICES, found.tolist(), strict=True):
        p, q = (logprobs_of(model, tokenizer, request) for model in models)
        expected = float((p.exp() * (p - q)).sum(-1).mean().detach())
        assert value == pytest.approx(expected, rel=1e-3, abs=1e-5)
    # references are a request's own, in whatever company it is asked
    for i in (1, 3, 2):
        alone = ours.divergence([CHOICES[i]], [references[i]])
        assert float(alone.detach()) == pytest.approx(float(found[i].detach()), abs=1e-5)
    assert ours.divergence(CHOICES, ours.predictions(CHOICES)).abs().max() < 1e-5


def test_tokens_that_a_reference_lacks_are_one_outcome(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "N_KEPT", 5)
    model = make_model("gpt2").double().requires_grad_(True)
    engine = loaded(model, tokenizer)
    (reference,) = engine.predictions(CHOICES[:1])
    assert reference.ids.shape == reference.logprobs.shape == (3, 5)  # " up" is three letters
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    expected = []
    for ids, p, q in zip(
        reference.ids.long(),
        reference.logprobs.double(),
        logprobs_of(model, tokenizer, CHOICES[0]),
        strict=True,
    ):
        rest = 1 - p.exp().sum()
        known = (p.exp() * (p - q[ids])).sum()
        expected.append(known + rest * (rest.log() - (1 - q[ids].exp().sum()).log()))
    found = engine.divergence(CHOICES[:1], [reference])
    assert float(found.detach()) == pytest.approx(float(torch.stack(expected).mean()))

    def total() -> torch.Tensor:
        return engine.divergence(CHOICES[:1], [reference]).sum()

    total().backward()
    parameter = model.get_input_embeddings().weight
    assert parameter.grad is not None
    direction = torch.randn(
        parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    slope = float((parameter.grad * direction).sum())
    assert _slope(total, parameter, direction) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_recomputed_activations_give_the_same_gradients_for_less_memory(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, architecture: str
) -> None:
    model = make_model(architecture).requires_grad_(True)
    engine = loaded(model, tokenizer)
    gradients, saved = [], []
    for checkpointing in (False, True):
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses = engine.loss(REQUESTS, checkpointing=checkpointing)
        saved.append(sum(sizes.values()))
        losses.sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert not model.training
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    parameters = sum(p.nbytes for p in model.parameters())
    assert saved[1] < saved[0]
    assert saved[1] - parameters < 0.8 * (saved[0] - parameters)


@pytest.mark.parametrize("rank", [None, 6])
@pytest.mark.parametrize(("hidden", "layers", "heads"), [(64, 3, (4, 4)), (96, 5, (6, 2))])
def test_what_a_backward_pass_takes_is_known_before(
    tokenizer: PreTrainedTokenizerFast,
    rank: int | None,
    hidden: int,
    layers: int,
    heads: tuple[int, int],
) -> None:
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=3 * hidden,
        num_hidden_layers=layers, num_attention_heads=heads[0], num_key_value_heads=heads[1],
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(rank is None)
    if rank is not None:
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and "layers" in name:
                a, b = torch.zeros(rank, module.in_features), torch.zeros(module.out_features, rank)
                c = torch.ones(rank, requires_grad=True)
                module.register_forward_hook(
                    lambda _, inputs, output, a=a, b=b, c=c: output + (inputs[0] @ a.T * c) @ b.T
                )
    engine = loaded(model, tokenizer)
    words = "the sun is a cold wind"
    requests = [LogLikelihood(f"{words * (1 + i % 5)} {i}", " up") for i in range(40)]
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = engine.loss(requests)
    limits = Limits.of(config, torch.float32, "cpu", None)
    kept = 0
    harness = Harness(model, copy.deepcopy(tokenizer), 1)
    for batch in likelihood_batches(requests, harness, FastPaths(True, False), limits).batches:
        n_rows, n_columns = batch.ids.shape
        stays, _ = limits.backward_bytes(
            n_rows, n_columns, len(batch.kept_row), checkpointing=False, rank=rank
        )
        kept += stays
    assert kept == pytest.approx(sum(sizes.values()), rel=0.1)
    cpu = torch.device("cpu")
    needed = [
        engine.backward_bytes(
            requests, config, torch.float32, cpu, checkpointing=checkpointing, rank=rank
        )
        for checkpointing in (False, True)
    ]
    assert kept < needed[0]
    assert needed[1] < needed[0]
    del losses
