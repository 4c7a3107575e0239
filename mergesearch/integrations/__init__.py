"""mergesearch as a part of other tools."""
