"""An implementation of the vault's format from its description, with independent libraries.

read FILE METHOD SECRET     prints every secret as JSON: [project, environment, name, value in base64, placeholder]
write FILE METHOD SECRET    makes a vault of such JSON on standard input

METHOD is key-file or passphrase; SECRET is a key file's path, or the passphrase.
"""
import base64, hashlib, hmac, json, os, struct, sys

from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

verb, path, method, secret = sys.argv[1:]


def b64(data):
    return base64.b64encode(data).decode()


def unb64(text):
    return base64.b64decode(text, validate=True)


def hkdf(salt, material, info):
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(material)


def wrapping_key(unlock):
    assert unlock["method"] == method, unlock
    salt = unb64(unlock["salt"])
    if method == "key-file":
        key = open(secret, "rb").read().removesuffix(b"\n")
        assert len(key) >= 32
        return hkdf(salt, key, b"agentsecrets-vault/1 key-file")
    return hash_secret_raw(
        secret.encode(), salt, time_cost=unlock["passes"], memory_cost=unlock["memory_kib"],
        parallelism=unlock["lanes"], hash_len=32, type=Type.ID, version=0x13,
    )


def seal(key, context, plain):
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, plain, context)


def open_(key, context, sealed):
    return AESGCM(key).decrypt(sealed[:12], sealed[12:], context)


def context(project, environment, name, version):
    parts = [b"agentsecrets-vault/1", project.encode(), environment.encode(), name.encode()]
    return b"".join(struct.pack(">Q", len(part)) + part for part in parts) + struct.pack(">Q", version)


def keys(data):
    return hkdf(None, data, b"agentsecrets-vault/1 items"), hkdf(None, data, b"agentsecrets-vault/1 file")


def dump(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n"


if verb == "read":
    lines = open(path, encoding="utf-8", newline="\n").read().splitlines(keepends=True)
    header = json.loads(lines[0])
    assert header["format"] == "agentsecrets-vault" and header["version"] == 1 and len(unb64(header["id"])) == 16
    wrapped = json.loads(lines[1])["wrapped_key"]
    data = open_(wrapping_key(header["unlock"]), lines[0].rstrip("\n").encode(), unb64(wrapped))
    items, mac = keys(data)
    proof = hmac.new(mac, "".join(lines[:-1]).encode(), hashlib.sha256).digest()
    assert hmac.compare_digest(proof, unb64(json.loads(lines[-1])["mac"]))
    found = []
    for line in lines[2:-1]:
        item = json.loads(line)
        where = item["project"], item["environment"], item["name"]
        value = open_(items, context(*where, item["version"]), unb64(item["sealed"]))
        found.append([*where, b64(value), item.get("placeholder")])
    assert [entry[:3] for entry in found] == sorted(entry[:3] for entry in found)
    print(json.dumps(found))
else:
    unlock = {"method": method, "salt": b64(os.urandom(32))}
    if method == "passphrase":
        unlock |= {"memory_kib": 65536, "passes": 3, "lanes": 1}
    header = dump({"format": "agentsecrets-vault", "version": 1, "id": b64(os.urandom(16)), "unlock": unlock})
    data = os.urandom(32)
    items, mac = keys(data)
    wrapped = seal(wrapping_key(unlock), header.rstrip("\n").encode(), data)
    content = header + dump({"generation": 7, "wrapped_key": b64(wrapped)})
    for project, environment, name, value, placeholder in sorted(json.load(sys.stdin), key=lambda entry: entry[:3]):
        item = {"project": project, "environment": environment, "name": name, "version": 7, "updated": "2026-01-02T03:04:05Z"}
        if placeholder is not None:
            item["placeholder"] = placeholder
        item["sealed"] = b64(seal(items, context(project, environment, name, 7), unb64(value)))
        content += dump(item)
    proof = hmac.new(mac, content.encode(), hashlib.sha256).digest()
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(content + dump({"mac": b64(proof)}))
