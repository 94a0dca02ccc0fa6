"""Turns raw files into a store."""
