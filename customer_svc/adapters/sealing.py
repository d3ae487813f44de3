"""Personal data sealed under its customer's key: AES-256-GCM, the nonce before the ciphertext."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from polymart.customer.v1.customer_pb2 import PersonalData

from customer_svc.application.ports import Unreadable

_KEY_BITS = 256
_NONCE = 12


def new_key() -> bytes:
    return AESGCM.generate_key(_KEY_BITS)


def seal(key: bytes, data: PersonalData) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, data.SerializeToString(), None)


def unseal(key: bytes, sealed: bytes) -> PersonalData:
    """Raises Unreadable for what wasn't sealed with this key, or was altered."""
    try:
        return PersonalData.FromString(AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], None))
    except (InvalidTag, ValueError) as error:
        raise Unreadable from error
