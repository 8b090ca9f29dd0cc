"""Drop-in replacements of modules of the standard library that stand on goslings."""
