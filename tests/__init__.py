"""Tests of LASER Studio; the folders mirror the package, and `browser` drives a real Chromium."""
