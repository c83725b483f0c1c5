"""Stages: read tables, call one pure function, write tables, log. One module per DVC stage."""
