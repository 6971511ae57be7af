"""Recipes: what identifies how something is made, so that it is not made again when nothing of that has changed.

What belongs here: hashing code and parameters. What stays out: what something was made of, which its maker knows.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from collections.abc import Iterable


def make_recipe(packages: Iterable[str], *parameters: object) -> str:
    """Identifies a way of making something.

    Args:
        packages: Names of packages of this project whose code decides.
        parameters: What else decides; told apart by how they are shown.
    """
    shown = "\0".join([*map(_hash_code, packages), *(f"{parameter!r}" for parameter in parameters)])
    return hashlib.blake2b(shown.encode(), digest_size=16).hexdigest()


@functools.cache
def _hash_code(package: str) -> str:
    """Hashes the modules and SQL files of a package, those of packages inside it left out."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(importlib.resources.files(package).iterdir(), key=lambda file: file.name):
        if file.is_file() and file.name.endswith((".py", ".sql")):
            content = file.read_bytes()
            digest.update(f"{file.name} {len(content)} ".encode() + content)
    return digest.hexdigest()
