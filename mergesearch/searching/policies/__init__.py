"""The policies of a search: starts, sampling, refining, racing and stopping."""
