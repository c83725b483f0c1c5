"""Results -> what a person reads: the page, its pictures, the tables of the terminal."""
