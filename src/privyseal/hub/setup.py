# SPDX-License-Identifier: Apache-2.0
"""`hub init`: a new hub in an empty directory, and the authority key that the operator takes away from it."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from privyseal.errors import ConfigError
from privyseal.hub.config import HubConfig, HubFiles, check_hub_name, load_hub_config
from privyseal.identity.bundle import AuthorityKey, BundleStatement, seal_bundle
from privyseal.identity.ca import make_ca, new_tls_key
from privyseal.identity.keyfile import new_ml_dsa_44, save_private_key, write_private, write_public
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.note import VerifierKey

__all__ = ["NewHub", "init_hub"]

_CONFIG_TEXT = """\
# A Privyseal hub. Keys, database and log lie beside this file.

# The hub's name is also the log's origin; it stands in every receipt and cannot be changed later.
name = "{name}"

# Signing, agents: TLS 1.3 with a client certificate. Joining, log, health: server certificate only.
listen_mtls = "{listen_mtls}"
listen_web = "{listen_web}"

# How clients and agents reach these two listeners.
mtls_url = "{mtls_url}"
web_url = "{web_url}"

# A PostgreSQL database instead of hub.db beside this file; without a password (docs/postgresql.md).
# database = "postgresql://privyseal@/privyseal?host=/run/postgresql"

# TSAs (RFC 3161) that the hub asks for clients with timestamp_via = "hub".
# [[tsa]]
# url = "http://tsa.example.com"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHub:
    """What a new hub needs to be told."""

    directory: Path
    authority_path: Path
    config: HubConfig


def init_hub(new: NewHub, now: dt.datetime) -> None:
    """Make CA, log keys, trust bundle and configuration; write the authority key where the operator wants it.

    Raises:
        ConfigError: `config.malformed`, `hub.exists`, `authority.exists`, `mldsa.unsupported`.
    """
    check_hub_name(new.config.name)
    files = HubFiles(new.directory)
    if new.directory.exists() and any(new.directory.iterdir()):
        raise ConfigError("hub.exists", f"{new.directory} is not empty", hint="give a new directory with --dir")
    if new.authority_path.exists():
        raise ConfigError("authority.exists", f"{new.authority_path} exists; an authority key is never overwritten")
    ca_key, log_key, authority_key = new_tls_key(), Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    log_mldsa_key = new_ml_dsa_44()
    new.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca = make_ca(new.config.name, ca_key, now)
    statement = BundleStatement(
        serial=1,
        hub=new.config.name,
        ca=ca.public_bytes(Encoding.PEM).decode(),
        log_key=VerifierKey(name=new.config.name, public_key=log_key.public_key().public_bytes_raw()).vkey,
        log_mldsa_key=Cosigner(name=new.config.name, key=log_mldsa_key).verifier.vkey,
        authorities=(AuthorityKey(name="operator", key=authority_key.public_key().public_bytes_raw()),),
        quorum=1,
    )
    bundle = seal_bundle(statement, (authority_key,))
    save_private_key(new.authority_path, authority_key)
    save_private_key(files.ca_key, ca_key)
    save_private_key(files.log_key, log_key)
    save_private_key(files.log_mldsa_key, log_mldsa_key)
    write_public(files.bundle, bundle.envelope)
    config = new.config
    text = _CONFIG_TEXT.format(**{name: getattr(config, name) for name in config.__struct_fields__})
    write_private(files.config, text.encode())
    load_hub_config(new.directory)
