"""Random programs with exact accounting: `make fuzz`. See __main__.py."""
