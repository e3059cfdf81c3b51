"""Opens the test vectors with other implementations: `cryptography` for HPKE, AES-256-GCM and HKDF, `pynacl` for Ed25519
and for the public keys. The argument is the file of vectors."""
import base64, hashlib, json, struct, sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.public import PrivateKey
from nacl.signing import SigningKey, VerifyKey

WORKSPACE_KEY = "0" * 32
vectors = json.load(open(sys.argv[1]))
b64 = base64.b64decode


def context(label, *parts):
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return f"agentsecrets-sync/1 {label}\n".encode() + b"".join(struct.pack(">Q", len(part)) + part for part in parts)


def unpad(padded):
    length = struct.unpack(">I", padded[:4])[0]
    size = 256
    while size < length + 4:
        size *= 2
    assert len(padded) == size and not any(padded[4 + length:])
    return padded[4:4 + length]


def unseal(key, bound, sealed):
    return unpad(AESGCM(key).decrypt(sealed[:12], sealed[12:], bound))


def commitment(key):
    return HKDF(hashes.SHA256(), 32, b"", b"agentsecrets-sync/1 key check").derive(key)


identity = vectors["identity"]
workspace, me = identity["workspace"], identity["member"]
signing = SigningKey(b64(identity["signing_seed"]))
private = PrivateKey(b64(identity["encryption_private"]))
assert bytes(private.public_key) == b64(identity["encryption_public"])
hpke = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

# The chain: format, numbers, links, and the hash of each body.
commits, before = [], "0" * 64
for seq, raw in enumerate(map(b64, vectors["commits"])):
    header_line, signature_line, body = raw.split(b"\n", 2)
    header = json.loads(header_line)
    assert (header["format"], header["version"], header["seq"]) == ("agentsecrets-sync", 1, seq)
    assert header["workspace"] == workspace and header["prev"] == before
    assert header["body_hash"] == hashlib.sha256(body).hexdigest() and header["body_len"] == len(body)
    before = hashlib.sha256(header_line + b"\n" + signature_line + b"\n").hexdigest()
    first, *entries = [json.loads(line) for line in body.split(b"\n") if line]
    commits.append((header_line, header, b64(json.loads(signature_line)["signature"]), first, entries))

# The keys: those that were sealed to this member, and the generations before them.
records = {(r["key"], r["generation"]): r for _, _, _, first, _ in commits for r in first["keys"]}
keys = {}
for _, _, _, first, _ in commits:
    for grant in first["grants"]:
        if grant["member"] != me:
            continue
        name, generation = grant["key"], grant["generation"]
        info = context("grant", workspace, name, generation, me)
        sealed = b64(grant["encapsulated"]) + b64(grant["sealed"])
        key = hpke.decrypt(sealed, X25519PrivateKey.from_private_bytes(bytes(private)), info=info)
        while (name, generation) not in keys:
            record = records[name, generation]
            assert b64(record["check"]) == commitment(key)
            keys[name, generation] = key
            if "prior" not in record:
                break
            key = unseal(key, context("prior", workspace, name, generation), b64(record["prior"]))
            generation -= 1

# Members, signatures and secrets.
members, names, found = {}, {}, []
for header_line, header, signature, first, entries in commits:
    operations = []
    if "control" in first:
        generation = first["control"]["generation"]
        bound = context("control", workspace, WORKSPACE_KEY, generation)
        operations = json.loads(unseal(keys[WORKSPACE_KEY, generation], bound, b64(first["control"]["sealed"])))
    if header["seq"] == 0:
        members[operations[0]["member"]["id"]] = operations[0]["member"]
    author = members[header["author"]]
    VerifyKey(b64(author["public"]["signing"])).verify(context("commit", header_line), signature)
    for operation in operations:
        if operation["op"] == "add":
            members[operation["member"]["id"]] = operation["member"]
        if operation["op"] == "remove":
            del members[operation["member"]]
    for record in first["keys"]:
        name, generation = record["key"], record["generation"]
        if (name, generation) in keys:
            bound = context("name of key", workspace, name, generation)
            names[name] = unseal(keys[name, generation], bound, b64(record["name"])).decode()
    for entry in entries:
        key = keys.get((entry["environment"], entry["generation"]))
        if key is None:
            continue
        environment = names[entry["environment"]]
        bound = context("name", workspace, entry["environment"], entry["generation"])
        part = json.loads(unseal(key, bound, b64(entry["name"])))
        bound = context("value", workspace, part["project"], environment, part["name"], part["version"])
        value = unseal(key, bound, b64(entry["value"])).decode()
        found.append({"environment": environment, "project": part["project"], "name": part["name"],
                      "version": part["version"], "deleted": part["deleted"], "value": value})

assert bytes(signing.verify_key) == b64(members[me]["public"]["signing"])
order = lambda entry: (entry["environment"], entry["project"], entry["name"], entry["version"])
assert sorted(found, key=order) == sorted(vectors["expected"], key=order), found
print(f"{len(commits)} commits, {len(keys)} keys, {len(found)} versions of secrets: all as expected")
