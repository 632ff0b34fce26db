#!/usr/bin/env python3
"""Takes the published vectors that fit what custodyd ships out of their sources, as they stand there.

    trim.py WYCHEPROOF WEBAUTHN    two clones: github.com/C2SP/wycheproof, github.com/w3c/webauthn

Fields that can be computed from others (PEM, DER, JWK) and groups for other key, nonce or tag sizes
are left out; no value is changed. Each file names its source and the commit.
"""

import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def git(clone, *arguments):
    return subprocess.run(["git", "-C", clone, *arguments], check=True, capture_output=True, text=True).stdout


def write(name, clone, source, vectors):
    commit = git(clone, "rev-parse", "HEAD").strip()
    head = {"source": source, "commit": commit}
    lines = ",\n".join("  " + json.dumps(vector) for vector in vectors)
    text = json.dumps(head)[:-1] + ', "vectors": [\n' + lines + "\n]}\n"
    (HERE / name).write_text(text)
    print(name, len(vectors))


def wycheproof(clone, name, wanted, fields):
    path = f"testvectors_v1/{name}_test.json"
    vectors = []
    for group in json.loads(git(clone, "show", f"HEAD:{path}"))["testGroups"]:
        if not wanted(group):
            continue
        shared = {"key": group["publicKey"]["uncompressed"]} if "publicKey" in group else {}
        for test in group["tests"]:
            vectors.append({"id": test["tcId"], "comment": test["comment"], **shared,
                            **{field: test[field] for field in fields}, "valid": test["result"] == "valid"})
    write(f"wycheproof_{name}.json", clone, f"https://github.com/C2SP/wycheproof {path}", vectors)


def webauthn(clone):
    text = git(clone, "show", "HEAD:index.bs")
    vectors = []
    for name in ["none-es256", "packed-self-es256", "none-es256-crossOrigin", "none-es256-topOrigin",
                 "none-es256-long-credential-id", "packed-es256"]:
        section = re.search(r"\{#sctn-test-vectors-%s\}\n(.*?)\n## " % name, text, re.S).group(1)
        ceremonies = re.findall(r'<xmp class="example" highlight="cddl">(.*?)</xmp>', section, re.S)
        def values(ceremony):
            return dict(re.findall(r"^(\w+) = h'([0-9a-f]*)'", ceremony, re.M))
        registration, authentication = map(values, ceremonies)
        vectors.append({
            "name": name,
            "registration": {k: registration[k] for k in
                             ["challenge", "credential_id", "clientDataJSON", "attestationObject"]},
            "authentication": {k: authentication[k] for k in
                               ["challenge", "authenticatorData", "clientDataJSON", "signature"]},
        })
    write("webauthn_level3.json", clone, "https://github.com/w3c/webauthn index.bs, section Test Vectors", vectors)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    clone = sys.argv[1]
    everything = lambda group: True
    wycheproof(clone, "ecdsa_secp256r1_sha256_p1363", everything, ["msg", "sig"])
    wycheproof(clone, "ecdsa_secp256r1_sha256", everything, ["msg", "sig"])
    wycheproof(clone, "hmac_sha256", lambda g: g["tagSize"] == 256, ["key", "msg", "tag"])
    wycheproof(clone, "aes_gcm", lambda g: (g["keySize"], g["ivSize"], g["tagSize"]) == (256, 96, 128),
               ["key", "iv", "aad", "msg", "ct", "tag"])
    webauthn(sys.argv[2])


main()
