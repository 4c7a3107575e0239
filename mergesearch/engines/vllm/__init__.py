"""The engine on vLLM, which writes texts; all else is the engine on torch."""
