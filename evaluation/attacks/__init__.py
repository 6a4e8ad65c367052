"""What somebody gets who wants the answer: every attack is a named transformation of the questions or of the model."""
