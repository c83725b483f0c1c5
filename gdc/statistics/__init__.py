"""Numbers in, numbers out: intervals, ranks, quantiles, exposure, hashes."""
