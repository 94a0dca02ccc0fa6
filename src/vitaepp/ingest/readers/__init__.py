"""Readers turn one image file into an array and its grid, or raise a one-line error.

Only the geometry in a file's header is used. Nothing else from the header leaves this package, not
even in an error message, because headers hold patient data.
"""
