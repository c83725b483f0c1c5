"""Our files: paths, tables, traces, atomic writes, MLflow runs, code digests."""
