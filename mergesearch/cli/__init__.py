"""The command line: parse, import late, call, print."""

from mergesearch.cli.app import main

__all__ = ["main"]
