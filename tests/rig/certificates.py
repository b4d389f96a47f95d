"""Certificates: good ones, and each kind of bad one.

`Authority.openssl` makes everything with openssl. `Authority.portcullis` takes the CA and the good leaves from the
product's own commands; the bad leaves, which it would not issue, are signed by the same CA with openssl.
"""

import datetime
import os
import pathlib

from .processes import run

TRUST_DOMAIN = "cluster.local"
CLIENT = "spiffe://cluster.local/ns/shop/sa/web"
SERVER = "spiffe://cluster.local/ns/shop/sa/cart"
FOREIGN = "spiffe://other.domain/ns/shop/sa/cart"

_LEAF = """
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = critical, {san}
[ca]
default_ca = here
[here]
dir = {dir}
database = $dir/index.txt
serial = $dir/serial
new_certs_dir = $dir
certificate = {ca_cert}
private_key = {ca_key}
default_md = sha256
policy = any
unique_subject = no
[any]
organizationName = optional
"""

_ROOT = """
[req]
distinguished_name = name
prompt = no
x509_extensions = root
[name]
O = {name}
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
subjectAltName = URI:spiffe://cluster.local
"""


class Leaf:
    """A leaf with its key, and the roots that its owner trusts."""

    def __init__(self, folder, trust):
        self.certificate = str(folder / "cert.pem")
        self.key = str(folder / "key.pem")
        self.trust = str(trust)


class Authority:
    def __init__(self, folder, binary=None):
        self.folder = folder
        self.binary = binary

    @classmethod
    def openssl(cls, folder, name="interop CA"):
        """A new CA in `folder`."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True)
        _genkey(folder / "ca-key.pem")
        config = folder / "root.cnf"
        config.write_text(_ROOT.format(name=name))
        run(["openssl", "req", "-x509", "-new", "-key", folder / "ca-key.pem", "-days", "30", "-config", config,
             "-out", folder / "ca-cert.pem"])
        (folder / "root-cert.pem").write_bytes((folder / "ca-cert.pem").read_bytes())
        return cls(folder)

    @classmethod
    def portcullis(cls, folder, binary):
        folder = pathlib.Path(folder)
        run([binary, "certs", "init", "--out", folder, "--trust-domain", TRUST_DOMAIN])
        return cls(folder, binary)

    @property
    def root(self):
        return self.folder / "root-cert.pem"

    def issue(self, folder, spiffe_id):
        """A good leaf."""
        if self.binary is None:
            return self.sign(folder, f"URI:{spiffe_id}")
        folder = pathlib.Path(folder)
        run([self.binary, "certs", "issue", "--ca", self.folder, "--id", spiffe_id, "--out", folder])
        return Leaf(folder, folder / "ca.pem")

    def sign(self, folder, san, days=(-1, 1), trust=None):
        """A leaf with any subjectAltName, valid from and to so many days from now, signed with openssl."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True)
        _genkey(folder / "key.pem")
        (folder / "index.txt").write_text("")
        config = folder / "ca.cnf"
        config.write_text(_LEAF.format(
            san=san, dir=folder, ca_cert=self.folder / "ca-cert.pem", ca_key=self.folder / "ca-key.pem"))
        run(["openssl", "req", "-new", "-key", folder / "key.pem", "-subj", "/O=interop", "-out", folder / "csr.pem"])
        run(["openssl", "ca", "-batch", "-notext", "-rand_serial", "-config", config, "-extensions", "leaf",
             "-startdate", _time(days[0]), "-enddate", _time(days[1]),
             "-in", folder / "csr.pem", "-out", folder / "cert.pem"])
        return Leaf(folder, trust or self.root)


class Set:
    """All leaves that the cases need, below one folder."""

    def __init__(self, folder, authority):
        folder = pathlib.Path(folder)
        other = Authority.openssl(folder / "other-ca", "other CA")
        # Trusting both roots, the owner of a leaf of the other CA accepts it at start.
        both = folder / "both-roots.pem"
        both.write_bytes(authority.root.read_bytes() + other.root.read_bytes())
        self.root = str(authority.root)
        self.client = authority.issue(folder / "client", CLIENT)
        self.server = authority.issue(folder / "server", SERVER)
        expired = (-3, -1)
        self.client_wrong_ca = other.sign(folder / "client-wrong-ca", f"URI:{CLIENT}", trust=both)
        self.server_wrong_ca = other.sign(folder / "server-wrong-ca", f"URI:{SERVER}", trust=both)
        self.client_expired = authority.sign(folder / "client-expired", f"URI:{CLIENT}", expired)
        self.server_expired = authority.sign(folder / "server-expired", f"URI:{SERVER}", expired)
        self.foreign = authority.sign(folder / "foreign", f"URI:{FOREIGN}")
        self.client_dns_only = authority.sign(folder / "dns-only", "DNS:web.shop.svc.cluster.local")
        self.client_two_ids = authority.sign(folder / "two-ids", f"URI:{CLIENT},URI:{SERVER}")
        self.app = authority.sign(folder / "app", "DNS:app.example")


def _genkey(path):
    run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path])
    os.chmod(path, 0o600)


def _time(days):
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    return when.strftime("%Y%m%d%H%M%SZ")
