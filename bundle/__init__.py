"""The steering bundle: what to apply, and nothing about whom; read and written without torch."""
