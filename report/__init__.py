"""One page that says what an evaluation found: words first, then figures and tables, for a person who was not there."""
