"""Attacks: named changes of the questions or of the model by somebody who wants the answers."""
