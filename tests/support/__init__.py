"""Help for the tests: servers, databases, things to put into them."""
