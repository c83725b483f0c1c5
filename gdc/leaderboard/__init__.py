"""Scores and counterfactual truth -> which score is true."""
