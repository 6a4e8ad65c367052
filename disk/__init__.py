"""Bytes on a disk: written whole or not at all, hashed, and linked where they can be."""
