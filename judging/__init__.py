"""Judging: pure functions of text and numbers, and the document that holds what they found."""
