"""The engine on torch: packed contexts, shared prefixes, transformers' generation."""
