"""What this package adds to mergesearch."""
