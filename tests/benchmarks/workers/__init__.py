"""Several workers beside one, part by part."""
