#!/usr/bin/env python3
"""Makes recovery_code.json and delivered_code.json.

A second implementation of the derivations in src/factors/recovery_code and
src/factors/delivered_code, with nothing but Python's standard library. The SDK
reads recovery_code.json too: client and daemon must derive the same parts. The
other files here are published vectors, typed from the source they name.
"""

import base64
import hashlib
import hmac
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
DEVICE_ID = {"otp": "custodyd/otp-device-id/v1",
             "recovery": "custodyd/recovery-codes-device-id/v1"}
VERIFIER = "custodyd/recovery-code-verifier/v1"


def crockford(data):
    """RFC 4648's bits (zeros behind the last), Crockford's letters, groups of four."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    symbols = "".join(LETTERS[int(bits[at:at + 5], 2)] for at in range(0, len(bits), 5))
    return "-".join(symbols[at:at + 4] for at in range(0, len(symbols), 4))


def fields(domain, *parts):
    h = hashlib.sha256()
    for part in (domain.encode(), *parts):
        h.update(len(part).to_bytes(4, "big") + part)
    return h.digest()


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def seeded(name, length):
    return hashlib.sha512(name.encode()).digest()[:length]


def hkdf(key, info):
    """RFC 5869 with no salt, one block of output."""
    prk = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(prk, info.encode() + b"\1", "sha256")


def recovery_code(code):
    check = hashlib.sha256(b"custodyd/recovery-code/check/v1" + code).digest()[:1]
    return {
        "code": code.hex(),
        "text": crockford(code + check),
        "auth": hkdf(code, "custodyd/recovery-code/auth/v1").hex(),
        "slot": hkdf(code, "custodyd/recovery-code/slot/v1").hex(),
    }


def recovery_codes():
    codes = [recovery_code(bytes(16)), recovery_code(b"\xff" * 16)]
    codes += [recovery_code(seeded(f"recovery code {n}", 16)) for n in range(8)]
    salt = seeded("recovery codes salt", 16)
    verifiers = [fields(VERIFIER, salt, bytes.fromhex(code["auth"])) for code in codes]
    text = codes[2]["text"]
    slip = ("1" if text[0] != "1" else "2") + text[1:]
    ones = recovery_code(bytes([0x08, 0x42, 0x10, 0x84, 0x21] * 3 + [0x08]))
    return {
        "about": "made by generate.py; a client and the daemon must agree on every line",
        "codes": codes + [ones],
        "typed": [
            {"typed": text.lower(), "text": text},
            {"typed": text.replace("-", ""), "text": text},
            {"typed": " " + text.replace("-", " ") + "\n", "text": text},
            {"typed": ones["text"].replace("1", "l"), "text": ones["text"]},
            {"typed": ones["text"].replace("1", "I"), "text": ones["text"]},
            {"typed": codes[0]["text"].replace("0", "O"), "text": codes[0]["text"]},
            {"typed": codes[0]["text"].replace("0", "o"), "text": codes[0]["text"]},
        ],
        "refused": [
            {"typed": slip, "error": "check"},
            {"typed": text[:-1] + LETTERS[(LETTERS.index(text[-1]) + 1) % 32], "error": "format"},
            {"typed": text[:-1], "error": "format"},
            {"typed": text + "0", "error": "format"},
            {"typed": text + "-0000-0000", "error": "format"},
            {"typed": text[:-1] + "U", "error": "format"},
            {"typed": "", "error": "format"},
        ],
        "set": {
            "salt": salt.hex(),
            "verifiers": [verifier.hex() for verifier in verifiers],
            "device_id": b64(fields(DEVICE_ID["recovery"], salt, *verifiers)),
        },
    }


def delivered_code(secret, step, counter, digits):
    form = bytes([1, digits]) if digits else bytes([2, 16])
    message = b"custodyd/delivered-code/v1"
    message += step.to_bytes(8, "big") + counter.to_bytes(8, "big") + form
    tag = hmac.digest(secret, message, "sha256")
    number = int.from_bytes(tag[:16], "big")
    return {
        "step": step,
        "counter": counter,
        "form": {"digits": digits} if digits else "long",
        "text": f"{number % 10**digits:0{digits}}" if digits else crockford(tag[:10]),
    }


def delivered_codes():
    secret, salt = seeded("otp secret", 32), seeded("otp salt", 16)
    moments = [(0, 0), (1, 0), (0, 1), (2_972_222, 41), (2**64 - 1, 2**64 - 1)]
    return {
        "about": "made by generate.py",
        "secret": b64(secret),
        "salt": b64(salt),
        "device_id": b64(fields(DEVICE_ID["otp"], salt, secret)),
        "codes": [delivered_code(secret, step, counter, digits)
                  for step, counter in moments for digits in (0, 6, 7, 8, 9, 10)],
    }


def write(name, vectors):
    (HERE / name).write_text(json.dumps(vectors, indent=2) + "\n")


write("recovery_code.json", recovery_codes())
write("delivered_code.json", delivered_codes())
