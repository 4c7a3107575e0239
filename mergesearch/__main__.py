"""`python -m mergesearch`."""

from mergesearch.cli import main

main()
