"""The dossier: a folder with what a paper about runs needs."""
