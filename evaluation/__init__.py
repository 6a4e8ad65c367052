"""Asks any checkpoint the same questions and scores the replies in one way: did the erasure work?"""
