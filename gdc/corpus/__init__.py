"""Sources -> samples, tokenizer, canaries, near duplicates, halves."""
