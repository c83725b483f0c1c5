"""Plans and texts -> trained models and their losses: our training loop."""
