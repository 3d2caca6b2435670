# SPDX-License-Identifier: Apache-2.0
"""Tables of a hub's database: its log, queue and enrolments.

Lists of names are JSON text, lists of certificates JSON of base64. Times are milliseconds since the epoch.
"""

from typing import Final

from privyseal.storage.connection import Schema

__all__ = ["HUB_SCHEMA"]

HUB_SCHEMA: Final = Schema(
    name="hub database",
    application_id=0x50537948,
    version=1,
    statements=(
        """
        CREATE TABLE log_head (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            origin TEXT NOT NULL,
            size INTEGER NOT NULL,
            root BLOB NOT NULL,
            note TEXT NOT NULL
        ) STRICT
        """,
        # The leaf hash stands before the body: a tile is read without the overflow pages of its entries.
        """
        CREATE TABLE log_entry (
            entry_index INTEGER PRIMARY KEY,
            leaf_hash BLOB NOT NULL,
            body BLOB NOT NULL
        ) STRICT
        """,
        # Tile levels 1 and up (C2SP tlog-tiles); level 0 stands in log_entry.
        """
        CREATE TABLE log_node (
            level INTEGER NOT NULL,
            hash_index INTEGER NOT NULL,
            hash BLOB NOT NULL,
            PRIMARY KEY (level, hash_index)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE log_checkpoint (
            number INTEGER PRIMARY KEY,
            size INTEGER NOT NULL UNIQUE,
            root BLOB NOT NULL,
            note TEXT NOT NULL,
            created_ms INTEGER NOT NULL
        ) STRICT
        """,
        # The same checkpoints as they were cosigned by witnesses: only those that a key profile had to wait for.
        """
        CREATE TABLE log_cosigned (
            size INTEGER PRIMARY KEY,
            note TEXT NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE join_code (
            secret_sha256 BLOB PRIMARY KEY,
            role TEXT NOT NULL,
            name TEXT NOT NULL,
            profiles TEXT NOT NULL,
            expires_ms INTEGER NOT NULL,
            statement_sha256 BLOB NOT NULL,
            taken INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE enrolment (
            role TEXT NOT NULL,
            name TEXT NOT NULL,
            certificate_sha256 BLOB NOT NULL UNIQUE,
            request_key BLOB NOT NULL,
            profiles TEXT NOT NULL,
            salt BLOB NOT NULL,
            entry_index INTEGER NOT NULL,
            revoked_ms INTEGER,
            PRIMARY KEY (role, name)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE key_grant (
            request_key BLOB NOT NULL,
            profile TEXT NOT NULL,
            envelope BLOB NOT NULL,
            entry_index INTEGER NOT NULL,
            PRIMARY KEY (request_key, profile)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE key_profile (
            name TEXT PRIMARY KEY,
            agent TEXT NOT NULL,
            chain TEXT NOT NULL,
            level TEXT NOT NULL,
            opaque TEXT NOT NULL,
            token_label TEXT NOT NULL,
            token_serial TEXT NOT NULL,
            hardware INTEGER NOT NULL,
            entry_index INTEGER NOT NULL,
            witness TEXT NOT NULL,
            test INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE request (
            id TEXT PRIMARY KEY,
            client TEXT NOT NULL,
            idempotency_key TEXT NOT NULL,
            profile TEXT NOT NULL,
            envelope BLOB NOT NULL,
            created_ms INTEGER NOT NULL,
            not_after_ms INTEGER NOT NULL,
            UNIQUE (client, idempotency_key)
        ) STRICT
        """,
        """
        CREATE TABLE job (
            seq INTEGER PRIMARY KEY,
            request_id TEXT NOT NULL REFERENCES request (id),
            item INTEGER NOT NULL,
            profile TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('queued', 'intent', 'signed', 'failed')),
            fence INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            intent_index INTEGER,
            result_index INTEGER,
            signature BLOB NOT NULL,
            branch TEXT NOT NULL,
            code TEXT NOT NULL,
            message TEXT NOT NULL,
            UNIQUE (request_id, item)
        ) STRICT
        """,
        # What waits or runs is small beside what was ever signed.
        "CREATE INDEX job_waiting ON job (profile, seq) WHERE state IN ('queued', 'intent')",
        # Whether a request has anything left to wait for, however many items it had.
        "CREATE INDEX job_open ON job (request_id, seq) WHERE state IN ('queued', 'intent')",
        # Apart from job: up to 1 MiB that need not be written again with each change of state.
        """
        CREATE TABLE job_preimage (
            seq INTEGER PRIMARY KEY REFERENCES job (seq),
            signed BLOB NOT NULL,
            detail BLOB NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE lease (
            profile TEXT PRIMARY KEY,
            holder TEXT NOT NULL,
            fence INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
    ),
)
