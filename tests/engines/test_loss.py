"""Losses beside lm-eval's log-likelihoods, and their gradients beside finite differences."""

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import MambaConfig, MambaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from mergesearch.engines.torch.engine import TorchEngine
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
    for request, loss in zip(REQUESTS, whole, strict=True):
        assert float(engine.loss([request])) == pytest.approx(float(loss), abs=1e-4)


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
