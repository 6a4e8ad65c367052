"""Pure functions that judge text and numbers, and the document that holds what they found."""
