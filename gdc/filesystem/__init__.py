"""Files, whoever owns them: what lies at a path, durable writes, Parquet files."""
