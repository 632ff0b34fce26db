#!/usr/bin/env python3
"""Makes the golden vectors of this folder.

A second implementation of FORMAT.md, with nothing but Python's standard
library, so that the vectors do not merely repeat what the Rust code does. Run
it when FORMAT.md changes; the tests of the crate read what it wrote. It is
slow and not constant-time: never use it for anything real.

Keys: the HMAC root of a key is SHA-256 of its label, the scalar of a signing
key is SHA-256 of its label as a big-endian number. Every good file has
`"error": null`; every other is named after its one defect.
"""

import base64
import hashlib
import hmac
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent


# AES-256-GCM (FIPS 197, SP 800-38D), zero nonce of 96 bits.

def _sbox():
    def times(a, b):
        r = 0
        while b:
            if b & 1:
                r ^= a
            a = (a << 1) ^ (0x11B if a & 0x80 else 0)
            b >>= 1
        return r
    box = []
    for x in range(256):
        inverse = next((y for y in range(256) if times(x, y) == 1), 0)
        y = inverse
        for shift in range(1, 5):
            y ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xFF
        box.append(y ^ 0x63)
    return box


SBOX = _sbox()


def double(b):
    return ((b << 1) ^ (0x1B if b & 0x80 else 0)) & 0xFF


def expand(key):
    words = [list(key[i:i + 4]) for i in range(0, 32, 4)]
    rcon = 1
    for i in range(8, 60):
        word = list(words[i - 1])
        if i % 8 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= rcon
            rcon = double(rcon)
        elif i % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(words[i - 8], word)])
    return [sum(words[i:i + 4], []) for i in range(0, 60, 4)]


def aes_block(round_keys, block):
    state = [a ^ b for a, b in zip(block, round_keys[0])]
    for number, key in enumerate(round_keys[1:], 1):
        state = [SBOX[b] for b in state]
        state = [state[(i + 4 * (i % 4)) % 16] for i in range(16)]
        if number < 14:
            mixed = []
            for c in range(0, 16, 4):
                a = state[c:c + 4]
                whole = a[0] ^ a[1] ^ a[2] ^ a[3]
                mixed += [a[i] ^ whole ^ double(a[i] ^ a[(i + 1) % 4]) for i in range(4)]
            state = mixed
        state = [a ^ b for a, b in zip(state, key)]
    return bytes(state)


def ghash(h, data):
    h = int.from_bytes(h, "big")
    y = 0
    for i in range(0, len(data), 16):
        y ^= int.from_bytes(data[i:i + 16], "big")
        z, v = 0, h
        for bit in range(127, -1, -1):
            if y >> bit & 1:
                z ^= v
            v = (v >> 1) ^ (0xE1 << 120 if v & 1 else 0)
        y = z
    return y.to_bytes(16, "big")


def gcm(key, aad, plaintext):
    keys = expand(key)
    counter = lambda n: aes_block(keys, bytes(12) + n.to_bytes(4, "big"))
    stream = b"".join(counter(2 + i) for i in range((len(plaintext) + 15) // 16))
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, stream))
    pad = lambda d: d + bytes(-len(d) % 16)
    lengths = (8 * len(aad)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
    s = ghash(aes_block(keys, bytes(16)), pad(aad) + pad(ciphertext) + lengths)
    return ciphertext + bytes(a ^ b for a, b in zip(s, counter(1)))


# ECDSA P-256 (FIPS 186-5, RFC 6979 with SHA-256).

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
     0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def add(p, q):
    if p is None or q is None:
        return p or q
    if p[0] == q[0] and (p[1] + q[1]) % P == 0:
        return None
    if p == q:
        slope = (3 * p[0] * p[0] - 3) * pow(2 * p[1], -1, P) % P
    else:
        slope = (q[1] - p[1]) * pow(q[0] - p[0], -1, P) % P
    x = (slope * slope - p[0] - q[0]) % P
    return (x, (slope * (p[0] - x) - p[1]) % P)


def multiply(k, p):
    r = None
    while k:
        if k & 1:
            r = add(r, p)
        p = add(p, p)
        k >>= 1
    return r


def ecdsa(d, message):
    digest = hashlib.sha256(message).digest()
    e = int.from_bytes(digest, "big")
    mac = lambda key, data: hmac.new(key, data, hashlib.sha256).digest()
    seed = d.to_bytes(32, "big") + (e % N).to_bytes(32, "big")
    k, v = bytes(32), b"\x01" * 32
    for byte in (b"\x00", b"\x01"):
        k = mac(k, v + byte + seed)
        v = mac(k, v)
    while True:
        v = mac(k, v)
        nonce = int.from_bytes(v, "big")
        if 0 < nonce < N:
            r = multiply(nonce, G)[0] % N
            s = pow(nonce, -1, N) * (e + r * d) % N
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        k = mac(k, v + b"\x00")
        v = mac(k, v)


# FORMAT.md

def be(n, size):
    return n.to_bytes(size, "big")


def lp(*fields):
    return b"".join(be(len(f), 4) + f for f in fields)


def sha(data):
    return hashlib.sha256(data).digest()


def root(label):
    return sha(label.encode())


def kdf(key, label, context):
    block = be(1, 4) + label + b"\x00" + sha(context) + be(256, 4)
    return hmac.new(key, block, hashlib.sha256).digest()


def frame(plaintext, size):
    return (be(len(plaintext), 4) + plaintext).ljust(size, b"\x00")


KINDS = {"realm": 0, "account": 1, "alias": 2, "tombstone": 3}
RECORD = {
    "realm": "demo.example", "app": "demo", "kind": "account", "record": "5a" * 32,
    "generation": 7, "keys": [1],
}


def seal(context, plaintext, salt, key_version=1, framed=None):
    header = b"CDS\x01" + be(key_version, 2) + salt
    encoded = lp(b"CDS\x01", be(key_version, 2), context["realm"].encode(),
                 context["app"].encode(), bytes([KINDS[context["kind"]]]),
                 bytes.fromhex(context["record"]), be(context["generation"], 8), salt)
    if framed is None:
        size = 1024
        while size < len(plaintext) + 4:
            size *= 2
        framed = frame(plaintext, size)
    key = kdf(root(f"custodyd-wrap-v{key_version}"), b"custodyd/record/v1", encoded)
    return header + gcm(key, header + encoded, framed)


def flip(data, index):
    changed = bytearray(data)
    changed[index] ^= 1
    return bytes(changed)


def patch(data, index, new):
    return data[:index] + new + data[index + len(new):]


def write(folder, name, vector):
    path = HERE / folder / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(vector, indent=2) + "\n")


def records():
    salt = bytes(range(16))
    plaintext = b"a device secret"
    good = seal(RECORD, plaintext, salt)

    def put(name, sealed=good, error="tampered", plain=plaintext, **changes):
        context = {**RECORD, **changes}
        vector = {"about": name.replace("-", " "), **context, "error": error}
        if error is None:
            vector |= {"salt": sealed[6:22].hex(), "plaintext": plain.hex(),
                       "digest": sha(b"custodyd/sealed/v1" + sealed).hex()}
        vector["sealed"] = sealed.hex()
        write("record", name, vector)

    put("good", error=None)
    put("good-empty", seal(RECORD, b"", salt), None, b"")
    long = bytes(range(256)) * 4
    put("good-second-size-class", seal(RECORD, long, salt), None, long)
    realm = {"app": "_realm", "kind": "realm"}
    put("good-realm-record", seal({**RECORD, **realm}, plaintext, salt), None, **realm)
    rotated = {"keys": [1, 2]}
    put("good-second-key", seal(RECORD, plaintext, salt, 2), None, **rotated)

    put("empty", b"")
    put("magic", patch(good, 0, b"CDX"))
    put("format-version", patch(good, 3, b"\x02"), "unsupported-version")
    put("key-version-not-in-the-token", patch(good, 4, be(9, 2)))
    put("key-version-zero", patch(good, 4, be(0, 2)))
    put("key-version-of-another-key", patch(good, 4, be(2, 2)), **rotated)
    put("salt", flip(good, 6))
    put("ciphertext-first-byte", flip(good, 22))
    put("ciphertext-last-byte", flip(good, len(good) - 17))
    put("tag", flip(good, len(good) - 1))
    put("one-byte-missing", good[:-1])
    put("one-byte-too-many", good + b"\x00")
    put("header-only", good[:22])
    put("next-size-class-by-zeros", good + bytes(1024))
    put("realm", realm="demo.exampl")
    put("app", app="demo2")
    put("kind", kind="tombstone")
    put("record-id", record="5b" + "5a" * 31)
    put("generation-before", generation=6)
    put("generation-after", generation=8)
    put("realm-and-app-shifted", realm="demo.exampled", app="emo")
    put("reserved-app-for-an-account", app="_realm", error="invalid")
    put("realm-record-with-an-app", kind="realm", error="invalid")
    odd = frame(plaintext, 1024)
    put("padding-not-zero", seal(RECORD, b"", salt, framed=odd[:-1] + b"\x01"))
    put("length-beyond-the-frame", seal(RECORD, b"", salt, framed=be(1021, 4) + odd[4:]))
    put("length-of-all-ones", seal(RECORD, b"", salt, framed=be(2**32 - 1, 4) + odd[4:]))
    put("larger-class-than-needed", seal(RECORD, b"", salt, framed=frame(plaintext, 2048)))
    put("frame-of-no-class", seal(RECORD, b"", salt, framed=frame(plaintext, 1040)))


LOCAL = {"domain": "custodyd/session-token/v1", "context": ["72656c6d", "65"],
         "header": "0102", "secret": "07" * 32}


def seal_local(vector, plaintext, salt, framed=None, size=0):
    encoded = lp(b"CDL\x01", vector["domain"].encode(), salt,
                 *map(bytes.fromhex, vector["context"]))
    key = kdf(bytes.fromhex(vector["secret"]), b"custodyd/local/v1", encoded)
    aad = encoded + lp(bytes.fromhex(vector["header"]))
    return b"CDL\x01" + salt + gcm(key, aad, framed or frame(plaintext, size))


def local():
    salt = bytes(range(16, 32))
    plaintext = b"a session"
    good = seal_local(LOCAL, plaintext, salt, size=64)

    def put(name, sealed=good, error="tampered", pad=64, **changes):
        vector = {"about": name.replace("-", " "), **LOCAL, **changes, "error": error}
        if error is None:
            vector |= {"salt": salt.hex(), "plaintext": plaintext.hex(), "multiple": pad}
        vector["sealed"] = sealed.hex()
        write("local", name, vector)

    put("good", error=None)
    put("good-without-padding", seal_local(LOCAL, plaintext, salt), None, pad=0)
    put("empty", b"")
    put("magic", patch(good, 0, b"CDS"))
    put("format-version", patch(good, 3, b"\x02"), "unsupported-version")
    put("salt", flip(good, 4))
    put("ciphertext", flip(good, 20))
    put("tag", flip(good, len(good) - 1))
    put("one-byte-missing", good[:-1])
    put("one-byte-too-many", good + b"\x00")
    put("too-short-for-a-frame", good[:39])
    put("domain", domain="custodyd/ceremony-token/v1")
    put("secret", secret="08" + "07" * 31)
    put("context", context=["72656c6d", "66"])
    put("context-shifted", context=["72656c", "6d65"])
    put("context-field-missing", context=["72656c6d"])
    put("header", header="0103")
    put("header-taken-for-context", context=["72656c6d", "65", "0102"], header="")
    put("padding-not-zero", seal_local(LOCAL, b"", salt, frame(plaintext, 64)[:-1] + b"\x01"))
    put("length-beyond-the-frame", seal_local(LOCAL, b"", salt, be(61, 4) + bytes(60)))


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def thumbprint(point):
    x, y = b64(be(point[0], 32)), b64(be(point[1], 32))
    return b64(sha(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()))


def bindings():
    label = "custodyd-bind-v1"
    scalar = int.from_bytes(root(label), "big")
    point = multiply(scalar, G)
    kid = thumbprint(point)
    header = f'{{"alg":"ES256","typ":"custodyd-binding+jwt","kid":"{kid}"}}'
    fields = {
        "iss": "demo.example", "app": "demo", "sub": "00112233-4455-6677-8899-aabbccddeeff",
        "device_id": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "kind": "device-key",
        "iat": 1800000000,
    }
    claims = json.dumps(fields, separators=(",", ":"))
    key = (b"\x04" + be(point[0], 32) + be(point[1], 32)).hex()

    def signed(head=header, body=claims):
        text = f"{b64(head.encode())}.{b64(body.encode())}"
        return f"{text}.{b64(ecdsa(scalar, text.encode()))}"

    def put(name, jws, error="tampered", said=fields):
        vector = {"about": name.replace("-", " "), "key": key, "kid": kid, "error": error}
        if error is None:
            vector["claims"] = said
        write("binding", name, {**vector, "jws": jws})

    good = signed()
    head, body, signature = good.split(".")
    put("good", good, None)
    for kind in ["app-key", "passkey", "pin", "totp", "recovery-codes", "delivered-code"]:
        said = {**fields, "kind": kind}
        text = json.dumps(said, separators=(",", ":"))
        put(f"good-{kind}", signed(body=text), None, said)
    # Signed by the right key, and still not a binding.
    put("alg-none", signed(header.replace("ES256", "none")))
    put("alg-hs256", signed(header.replace("ES256", "HS256")))
    put("typ", signed(header.replace("custodyd-binding+jwt", "JWT")))
    put("kid", signed(header.replace(kid, kid[::-1])))
    put("header-order", signed(f'{{"typ":"custodyd-binding+jwt","alg":"ES256","kid":"{kid}"}}'))
    put("header-with-jwk", signed(header[:-1] + ',"jwk":{}}'))
    put("claim-unknown", signed(body=claims[:-1] + ',"admin":true}'))
    put("claim-twice", signed(body=claims[:-1] + ',"iat":1}'))
    put("claim-missing", signed(body=claims.replace('"app":"demo",', "")))
    put("claims-trailing", signed(body=claims + "{}"))
    put("kind-unknown", signed(body=claims.replace("device-key", "root-key")))
    put("device-id-empty", signed(body=claims.replace(fields["device_id"], "")))
    put("device-id-alphabet", signed(body=claims.replace("NzbL", "Nz/L")))
    put("device-id-too-long", signed(body=claims.replace(fields["device_id"], "a" * 129)))
    put("iss-not-a-realm", signed(body=claims.replace("demo.example", "Demo")))
    put("app-reserved", signed(body=claims.replace('"demo",', '"_realm",')))
    put("sub-upper-case", signed(body=claims.replace("aabb", "AABB")))
    put("iat-negative", signed(body=claims.replace("1800000000", "-1")))
    # A good one that somebody changed.
    for name, old, new in [
        ("iss", "demo.example", "demo.exbmple"), ("app", '"demo",', '"dema",'),
        ("sub", "0011", "0012"), ("device-id", "NzbL", "NzbM"),
        ("kind", "device-key", "app-key"), ("iat", "1800000000", "1800000001"),
    ]:
        put(f"changed-{name}", f"{head}.{b64(claims.replace(old, new).encode())}.{signature}")
    raw = base64.urlsafe_b64decode(signature + "==")
    put("changed-signature-r", f"{head}.{body}.{b64(flip(raw, 0))}")
    put("changed-signature-s", f"{head}.{body}.{b64(flip(raw, 63))}")
    put("signature-swapped", f"{head}.{body}.{b64(raw[32:] + raw[:32])}")
    put("signature-of-zeros", f"{head}.{body}.{b64(bytes(64))}")
    put("signature-short", f"{head}.{body}.{b64(raw[:63])}")
    put("signature-missing", f"{head}.{body}.")
    put("signature-padded", good + "==")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = last[last.index(signature[-1]) | 1]
    put("signature-second-spelling", good[:-1] + other)
    put("one-part-more", good + ".")
    put("one-part-less", f"{head}.{body}")
    put("empty", "")


def webhooks():
    label = "custodyd-webhook-v1"
    scalar = int.from_bytes(root(label), "big")
    point = multiply(scalar, G)
    kid = thumbprint(point)
    header = f'{{"alg":"ES256","typ":"custodyd-webhook+jwt","kid":"{kid}"}}'
    body = '{"to":"+491700000000","text":"a code"}'
    fields = {
        "iss": "demo.example", "aud": "https://sms.example/send?from=demo", "iat": 1800000000,
        "jti": b64(bytes(range(16))), "body_sha256": b64(sha(body.encode())),
    }
    text = f"{b64(header.encode())}.{b64(json.dumps(fields, separators=(',', ':')).encode())}"
    key = (b"\x04" + be(point[0], 32) + be(point[1], 32)).hex()
    write("webhook", "good", {
        "about": "good", "key": key, "kid": kid, "error": None, "body": body, "claims": fields,
        "jws": f"{text}.{b64(ecdsa(scalar, text.encode()))}",
    })


ANCHOR = {"realm": "demo.example", "serial": 7, "log_epoch": 2, "seq": 41, "head": "a5" * 32,
          "boot_epoch": 3, "clean": False, "dirty": True}
BOOT = "01234567-89ab-cdef-0123-456789abcdef"


def anchor_body(fields, boot=None, flags=None, keys=None):
    magic = b"CDA" if boot is None else b"CDW"
    if flags is None:
        flags = fields["clean"] | fields["dirty"] << 1
    numbers = b"".join(be(fields[name], 8) for name in ("serial", "log_epoch", "seq"))
    version = b"\x01" if keys is None else b"\x02" + bytes([len(keys)]) + b"".join(be(key, 2) for key in keys)
    body = (magic + version + lp(fields["realm"].encode()) + numbers
            + bytes.fromhex(fields["head"]) + be(fields["boot_epoch"], 8) + bytes([flags]))
    return body if boot is None else body + lp(boot.encode())


def tagged(body, domain, keys=(1,)):
    statement, tag = lp(domain, body), None
    for key in keys:
        of = statement if tag is None else lp(b"custodyd/further-tag/v1", statement, tag)
        tag = hmac.new(root(f"custodyd-mac-v{key}"), of, hashlib.sha256).digest()
    return body + tag


def anchors():
    """One file per defect: what is changed and still tagged rightly must be refused as a
    form, what is changed behind the tag's back must be refused by the tag."""
    places = {"realm-length": 7, "realm": 8, "serial": 27, "log-epoch": 35, "seq": 43,
              "head": 44, "boot-epoch": 83, "flags": 84}
    for folder, domain, boot in [("anchor", b"custodyd/anchor/v1", None),
                                 ("warm", b"custodyd/warm-anchor/v1", BOOT)]:
        good = tagged(anchor_body(ANCHOR, boot), domain)

        def put(name, bytes_, error="tampered", fields=ANCHOR):
            vector = {"about": name.replace("-", " "), "realm": "demo.example", "boot_id": BOOT,
                      "error": error}
            if error is None:
                vector["anchor"] = {k: v for k, v in fields.items() if k != "realm"}
            write(folder, name, {**vector, "bytes": bytes_.hex()})

        def made(boot=boot, flags=None, **changes):
            return tagged(anchor_body({**ANCHOR, **changes}, boot, flags), domain)

        put("good", good, None)
        for name, flags in [("good-clean", (True, False)), ("good-neither", (False, False))]:
            fields = {**ANCHOR, "clean": flags[0], "dirty": flags[1]}
            put(name, tagged(anchor_body(fields, boot), domain), None, fields)
        # Changed after the tag was made: one file for each field.
        for name, at in places.items():
            put(f"changed-{name}", flip(good, at))
        put("changed-tag", flip(good, len(good) - 1))
        put("magic", patch(good, 0, b"CDS"))
        put("format-version", patch(good, 3, b"\x03"), "unsupported-version")
        # Tagged as they are, and still no anchor: these keys are what version 1 says, or none.
        for name, keys in [("keys-of-version-one", [1]), ("keys-none", []), ("keys-falling", [2, 1]),
                           ("keys-not-held", [1, 7])]:
            put(name, tagged(anchor_body(ANCHOR, boot, keys=keys), domain))
        put("serial-zero", made(serial=0))
        put("clean-and-dirty", made(clean=True))
        put("flags-unknown", made(flags=4))
        put("realm-not-a-name", made(realm="Demo.Example"))
        put("realm-empty", made(realm=""))
        put("another-realm", made(realm="demo.exampld"))
        put("one-byte-too-many", tagged(anchor_body(ANCHOR, boot) + b"\x00", domain))
        put("one-byte-missing", good[:-1])
        put("tag-only", good[-32:])
        put("empty", b"")
        put("domain-of-the-other", tagged(
            anchor_body(ANCHOR, boot), b"custodyd/anchor/v1" if boot else b"custodyd/warm-anchor/v1"))
        put("form-of-the-other", made(boot=None if boot else BOOT))
        if boot:
            put("changed-boot-id", flip(good, 89))
            put("boot-id-empty", made(boot=""))
            put("boot-id-too-long", made(boot="a" * 65))
            put("boot-id-with-space", made(boot="a b"))


def anchors_of_two_keys():
    """What says that two MAC keys tag it counts by both of them together, in rising order, and by nothing else."""
    for form, domain, boot in [("anchor", b"custodyd/anchor/v1", None),
                               ("warm", b"custodyd/warm-anchor/v1", BOOT)]:
        body = anchor_body(ANCHOR, boot, keys=[1, 2])
        for name, keys, error in [("good", (1, 2), None), ("by-the-older", (1,), "tampered"),
                                  ("by-the-newer", (2,), "tampered"), ("falling", (2, 1), "tampered")]:
            vector = {"about": f"{form} {name}".replace("-", " "), "realm": "demo.example", "boot_id": BOOT,
                      "error": error}
            if error is None:
                vector["anchor"] = {k: v for k, v in ANCHOR.items() if k != "realm"}
            write("two-keys", f"{form}-{name}", {**vector, "bytes": tagged(body, domain, keys).hex()})


def statements():
    realm, app = b"demo.example", b"demo"
    record = bytes.fromhex("5a" * 32)
    key = "custodyd-mac-v1"
    listed = {
        "record-id-account": lp(b"custodyd/record-id/v1", realm, app, b"\x01", b"\x11" * 16),
        "record-id-alias": lp(b"custodyd/record-id/v1", realm, app, b"\x02", b"ann@demo.example"),
        "record-id-realm": lp(b"custodyd/record-id/v1", realm, b"_realm", b"\x00", b"realm"),
        "pin-pepper": lp(b"custodyd/pin-pepper/v1", realm, app, record),
        "opaque-key-material": lp(b"custodyd/opaque-key-material/v1", realm, app, record, b"\x3c" * 32),
        "opaque-decoy": lp(b"custodyd/opaque-decoy/v1", realm, app, b"\x11" * 16),
        "session-epoch-key": lp(b"custodyd/session-epoch/v1", realm, be(3, 8)),
        "ceremony-epoch-key": lp(b"custodyd/ceremony-epoch/v1", realm, be(3, 8)),
        "idempotent-account": lp(b"custodyd/idempotent-account/v1", realm, app, b"jkt", b"key"),
        "ticket-account": lp(b"custodyd/ticket-account/v1", realm, app, b"jti"),
        "head": lp(b"custodyd/head/v1", realm, sha(b"a head")),
        "known-answer": lp(b"custodyd/known-answer/v1"),
    }
    tag = lambda message: hmac.new(root(key), message, hashlib.sha256).digest()
    vectors = {n: {"statement": m.hex(), "tag": tag(m).hex()} for n, m in listed.items()}
    for name in ("idempotent-account", "ticket-account"):
        account = bytearray(tag(listed[name])[:16])
        account[6] = account[6] & 0x0F | 0x80
        account[8] = account[8] & 0x3F | 0x80
        vectors[name]["account"] = bytes(account).hex()
    context = bytes(range(32))
    derived = hmac.new(root("custodyd-wrap-v1"),
                       be(1, 4) + b"custodyd/record/v1\x00" + context + be(256, 4),
                       hashlib.sha256).digest()
    vectors["derive"] = {"label": "custodyd/record/v1", "context_hash": context.hex(),
                         "key": derived.hex()}
    write("mac", "good", {"about": "every statement that a MAC key makes", **vectors})


def self_test():
    key = bytes.fromhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
    block = aes_block(expand(key), bytes.fromhex("00112233445566778899aabbccddeeff"))
    assert block.hex() == "8ea2b7ca516745bfeafc49904b496089", "FIPS 197, appendix C.3"
    assert gcm(bytes(32), b"", b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    x = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    r = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
    assert ecdsa(x, b"sample").hex().startswith(r), "RFC 6979, appendix A.2.5"


if __name__ == "__main__":
    self_test()
    records()
    local()
    bindings()
    webhooks()
    anchors()
    anchors_of_two_keys()
    statements()
