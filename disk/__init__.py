"""Bytes on a disk: whole or not at all, named by hash, linked where they can be."""
