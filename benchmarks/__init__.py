"""What is measured: speed, memory and experiments, each a script with a table in the docs."""
