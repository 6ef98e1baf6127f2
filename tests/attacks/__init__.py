"""Makers of hostile and broken files, and the tests that every way in refuses each. Nothing harms: a payload makes a folder."""
