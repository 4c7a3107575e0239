"""An engine that keeps a transcript of what models were asked, and what they answered."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mergesearch.engines import ENGINES, Capabilities, Cost, Engine
from mergesearch.requests import Request, Response
from mergesearch.runtime import Runtime

TRANSCRIPT = Path("transcript.jsonl")


class TranscriptEngine:
    """The engine `torch`, with a line of `transcript.jsonl` for each request."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def capabilities(self) -> Capabilities:
        """What it can be asked."""
        return Capabilities(self._engine.capabilities.requests)

    def load(self, model: Any) -> None:
        """Take the weights that a model in memory has now."""
        self._engine.load(model)

    def unload(self) -> None:
        """Let go of the model."""
        self._engine.unload()

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """Answer requests, and write them down."""
        responses = self._engine.answer(requests)
        with TRANSCRIPT.open("a") as file:
            for request, response in zip(requests, responses, strict=True):
                line = {"kind": request.kind, **vars(request), "response": response}
                file.write(json.dumps(line) + "\n")
        return responses

    def cost(self, requests: Sequence[Request], config: Any, dtype: Any, device: Any) -> Cost:
        """Estimate what answering takes."""
        return self._engine.cost(requests, config, dtype, device)

    def describe(self, model: Any) -> Mapping[str, Any]:
        """Say of a model what lm-eval's result files do."""
        return self._engine.describe(model)


def transcript(tokenizer: Any, runtime: Runtime) -> TranscriptEngine:
    """Make the engine for the models of one tokenizer."""
    return TranscriptEngine(ENGINES["torch"](tokenizer, runtime))
