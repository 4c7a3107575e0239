"""How a model is asked: engines, and the one on torch."""
