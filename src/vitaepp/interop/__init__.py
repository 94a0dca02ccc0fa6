"""The encoder in other people's tools."""
