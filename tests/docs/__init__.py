"""The pages tell the truth: code blocks, links, pictures, reference, examples."""
