"""What decides a search: where it starts, what it tries next, what it stops, when it ends."""
