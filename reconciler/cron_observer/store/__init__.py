"""All SQL. Nothing outside this room knows a table; nothing in it decides what the pure rooms decide."""
