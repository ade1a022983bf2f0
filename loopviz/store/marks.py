"""Ids that nobody guesses, secrets of owners, and what is kept of those: a hash each, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Any

_ID = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)  # 16 bytes, as `secrets.token_urlsafe` writes them
_SECRET = re.compile(r"[A-Za-z0-9_-]{32}", re.ASCII)  # 24 bytes


def new_id() -> str:
    """An id for a run or a folder: 128 random bits."""
    return secrets.token_urlsafe(16)


def new_secret() -> str:
    """An owner's secret: 192 random bits."""
    return secrets.token_urlsafe(24)


def is_id(said: Any) -> bool:
    """Whether something is written as an id is: nothing else ever becomes part of a file's name."""
    return isinstance(said, str) and _ID.fullmatch(said) is not None


def is_secret(said: Any) -> bool:
    """Whether something is written as a secret is."""
    return isinstance(said, str) and _SECRET.fullmatch(said) is not None


def hashed(secret: str) -> str:
    """What is kept of a secret. (It is random and long: a slow hash, as passwords need, would add nothing.)"""
    return hashlib.sha256(secret.encode()).hexdigest()


def placed(address: str, salt: str) -> str:
    """What is kept of the address somebody comes from: enough to count by, not to find them."""
    return hmac.new(salt.encode(), address.encode(), "sha256").hexdigest()[:32]


def fits(secret: Any, kept: str) -> bool:
    """Whether this is the secret of which `kept` is the hash; takes as long for a wrong one."""
    return is_secret(secret) and hmac.compare_digest(hashed(secret), kept)
