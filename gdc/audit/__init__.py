"""One model -> what it leaks: extraction, exposure, membership inference."""
