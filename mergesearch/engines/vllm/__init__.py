"""The engine on vLLM: texts by a live vLLM, everything else by the engine on torch."""
