# SPDX-License-Identifier: Apache-2.0
"""What `privyseal doctor` looks at for a hub, running or not; it writes nothing and takes no lock for long."""

import errno
import shutil
import socket
import ssl
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509

from privyseal.errors import ConfigError, PrivysealError, UnavailableError
from privyseal.hub.config import HubFiles, load_hub_config, split_address
from privyseal.hub.diagnosis_database import database_rows
from privyseal.identity.bundle import TrustBundle, load_bundle
from privyseal.identity.diagnosis import check_account, check_files, days_left, moment
from privyseal.identity.keyfile import load_ed25519, load_ml_dsa_44, load_tls_key
from privyseal.ports.clock import Clock
from privyseal.ports.diagnosis import Row, failed, look, passed, skipped, warned

__all__ = ["check_space", "hub_rows"]

_DAYS_BEFORE_CA_EXPIRY: Final = 365
_WARN_BELOW_BYTES: Final = 1024**3
_FAIL_BELOW_BYTES: Final = 64 * 1024**2
_CONNECT_SECONDS: Final = 2.0


def hub_rows(directory: Path, clock: Clock) -> tuple[Row, ...]:
    """All rows of a hub that need no network."""
    subject, files = "configuration", HubFiles(directory)
    try:
        config = load_hub_config(directory)
        bundle = load_bundle(files.bundle)
    except PrivysealError as error:
        return (failed(subject, error), skipped("all else", "it needs the configuration", "mend the above first"))
    database = (files.database,) if files.database.exists() else ()
    return (
        passed(subject, f"{files.config}: hub {config.name}, {len(bundle.authority_keys)} authority keys"),
        check_account(directory, f"privyseal doctor --dir {directory}"),
        *check_files(directory, (files.config, files.ca_key, files.log_key, files.log_mldsa_key, *database)),
        look("keys", lambda: _check_keys(files, bundle, clock)),
        *database_rows(files, config, clock),
        *(
            look(f"port {address}", partial(_check_port, address, files))
            for address in (config.listen_mtls, config.listen_web)
        ),
        *((_proxied(config.listen_proxied),) if config.listen_proxied else ()),
        look("disk space", lambda: check_space(directory, shutil.disk_usage(directory).free)),
    )


def _check_keys(files: HubFiles, bundle: TrustBundle, clock: Clock) -> Row:
    """CA key and log keys are those that the trust bundle promises."""
    ca = x509.load_pem_x509_certificate(bundle.statement.ca.encode())
    pairs = (
        (files.ca_key, load_tls_key(files.ca_key).public_key() == ca.public_key()),
        (
            files.log_key,
            load_ed25519(files.log_key).public_key().public_bytes_raw() == bundle.log_key.public_key,
        ),
        (
            files.log_mldsa_key,
            load_ml_dsa_44(files.log_mldsa_key).public_key().public_bytes_raw() == bundle.log_mldsa_key.public_key,
        ),
    )
    for path, fits in pairs:
        if not fits:
            raise ConfigError(
                "file.not_a_key",
                f"{path} is not the key that the trust bundle {files.bundle} names",
                hint="bring back the key that this hub was made with: nobody believes another one",
            )
    ends, now = ca.not_valid_after_utc, moment(clock)
    left = days_left(ends, now)
    found = f"CA and log keys are those of the trust bundle; the CA is valid until {ends:%Y-%m-%d}, {left} days"
    if left < _DAYS_BEFORE_CA_EXPIRY:
        return warned("keys", found, "plan a new CA: after that day nobody reaches this hub")
    return passed("keys", found)


def _proxied(address: str) -> Row:
    """What the listener for a proxy means; who holds its port cannot be told, as it shows no certificate."""
    subject = "proxied listener"
    found = f"{address}, plain HTTP: a proxy that ends TLS sees names, digests and claims, and can sign nothing"
    host, _ = split_address(address)
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if is_loopback:
        return passed(subject, found)
    return warned(
        subject, f"{found}; so does this network", f"let none but the proxy reach {address}, or run the proxy here"
    )


def _check_port(address: str, files: HubFiles) -> Row:
    """Free, or held by a process with this hub's certificate."""
    host, port = split_address(address)
    subject = f"port {address}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise _cannot_listen(address, str(error.strerror), files) from error
        else:
            return passed(subject, "free: the hub does not run now")
    return _check_holder(address, files)


def _check_holder(address: str, files: HubFiles) -> Row:
    """Who holds the port: this hub shows a certificate of its own CA, always also for `localhost`."""
    subject = f"port {address}"
    host, port = split_address(address)
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=load_bundle(files.bundle).statement.ca)
    try:
        with (
            socket.create_connection((near, port), timeout=_CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost"),
        ):
            return passed(subject, "held by this hub, which runs")
    except ConnectionRefusedError:
        return warned(
            subject,
            "nobody listens there, and this account may not open it",
            "ports below 1024 need CAP_NET_BIND_SERVICE: docs/systemd.md shows the lines for the service",
        )
    except OSError as error:
        reason = f"another process holds it, and shows no certificate of this hub's CA ({error})"
        raise _cannot_listen(address, reason, files) from error


def _cannot_listen(address: str, reason: str, files: HubFiles) -> ConfigError:
    _, port = split_address(address)
    return ConfigError(
        "listen.failed",
        f"the hub cannot listen on {address}: {reason}",
        hint=f"ss -ltnp 'sport = :{port}' shows who does; end that program, or change {files.config}",
    )


def check_space(directory: Path, free_bytes: int) -> Row:
    """Room for the log to grow."""
    found = f"{free_bytes / 1024**3:.1f} GiB free at {directory}"
    if free_bytes < _FAIL_BELOW_BYTES:
        raise UnavailableError(
            "store.unavailable",
            f"{found}: the log cannot grow, and without it nothing is signed",
            hint="make room, or move the hub's directory to a larger file system (with the hub stopped)",
        )
    if free_bytes < _WARN_BELOW_BYTES:
        return warned("disk space", found, "make room soon: when the log cannot grow, nothing is signed")
    return passed("disk space", found)
