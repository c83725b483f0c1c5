"""Generative data cartography: which training samples does a model memorize, and what to do."""
