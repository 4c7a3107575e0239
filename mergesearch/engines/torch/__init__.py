"""The engine on torch: packed contexts, shared prefixes, generation by transformers."""
