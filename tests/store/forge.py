"""Taking program files apart and putting forged ones together."""

import hashlib
import json


def header_of(data: bytes) -> tuple[dict, bytes]:
    """The header, and the bytes after it."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def forge(header: object, body: bytes) -> bytes:
    """A file with any header, whether it makes sense or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + body


def signed(header: dict, body: bytes) -> dict:
    """The header with the digest that belongs to it and the body; what somebody with ill intent would write."""
    metadata = {k: v for k, v in header["__metadata__"].items() if k != "sha256"}
    covered = json.dumps(
        {**header, "__metadata__": metadata}, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )
    return {**header, "__metadata__": {**metadata, "sha256": hashlib.sha256(covered.encode() + body).hexdigest()}}
