"""The attacks of ``scripts/attack.py``."""
