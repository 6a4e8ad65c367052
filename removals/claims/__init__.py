"""What a base knows about a person: asked in many wordings, and told apart from what it guesses."""
