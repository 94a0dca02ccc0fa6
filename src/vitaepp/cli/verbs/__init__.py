"""The verbs, a file each: it calls one function of the library, and holds no logic.

Imports of the library stay inside the functions, so that `--help` answers at once.
"""
