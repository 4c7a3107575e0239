"""GGUF files, for llama.cpp and all that is built on it."""

from mergesearch.exporting.gguf.writing import write_gguf

__all__ = ["write_gguf"]
