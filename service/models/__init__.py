"""The model repository on disk, and the models loaded from it.

Path: repository folder → **models** → engine.
"""
