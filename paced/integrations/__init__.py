"""Trainers that can draw from a curriculum, one small module each; importing this imports none of them."""
