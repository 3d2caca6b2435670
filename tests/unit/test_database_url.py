# SPDX-License-Identifier: Apache-2.0
"""Which addresses of a database are accepted, and that a refusal repeats no secret."""

import pytest

from privyseal.errors import ConfigError
from privyseal.storage.postgres_url import check_database_url, database_place

SECRET = "canary-5150"


@pytest.mark.parametrize(
    "url",
    [
        "postgres://hub@localhost/privyseal",
        "postgresql://hub@/privyseal?host=/run/postgresql",
        "postgresql://hub@localhost:5433/privyseal",
        "postgresql://hub@127.0.0.1/privyseal?passfile=/etc/pgpass",
        "postgresql://hub@[::1]/privyseal",
        "postgresql://hub@db.example/privyseal?sslmode=verify-full",
    ],
)
def test_an_address_without_a_secret_is_accepted(url: str) -> None:
    check_database_url(url)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://hub:{SECRET}@localhost/privyseal",
        f"postgresql://hub:{SECRET}@[::1/privyseal",
        f"postgresql://hub@localhost/privyseal?password={SECRET}",
        f"postgresql://hub@localhost/privyseal?passWord={SECRET}",
        f"postgresql://hub@localhost/privyseal?sslpassword={SECRET}",
        f"postgresql://hub@localhost/privyseal?{SECRET}",
        "postgresql://hub@localhost/privyseal?service=other",
        "postgresql://hub@evil.example@localhost/privyseal",
        "postgresql://hub@/privyseal",
        "postgresql:///privyseal",
        f"mysql://hub:{SECRET}@localhost/privyseal",
        f"host=localhost password={SECRET}",
        "postgresql://hub:@localhost/privyseal",
        "postgresql://hub@localhost/privyseal?password=",
        "postgresql://hub@db.example/privyseal",
        "postgresql://hub@db.example/privyseal?sslmode=require",
        "postgresql://hub@/privyseal?host=db.example",
        "postgresql://hub@/privyseal?host=/run/postgresql,db.example",
        "postgresql://hub@localhost,db.example/privyseal",
        "postgresql://hub@db.example/privyseal?host=/run/postgresql",
        "postgresql://hub@db.example/privyseal?sslmode=verify-full&sslmode=disable",
    ],
)
def test_any_other_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_database_url(url)

    assert caught.value.code == "config.database"
    assert caught.value.hint
    assert SECRET not in f"{caught.value} {caught.value.hint}"


def test_an_address_is_told_as_database_and_host() -> None:
    assert database_place("postgresql://hub@db.example/privyseal?x=1") == "PostgreSQL database privyseal at db.example"
    assert database_place("postgresql:///log?host=/run/postgresql") == "PostgreSQL database log at /run/postgresql"
