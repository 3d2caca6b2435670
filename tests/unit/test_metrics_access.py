# SPDX-License-Identifier: Apache-2.0
"""Who may read /metrics."""

from pathlib import Path

import pytest

from privyseal.errors import ConfigError
from privyseal.hub.config import MetricsTable, load_hub_config
from privyseal.hub.http.health import is_allowed

HEAD = """\
name = "signing.example.com"
listen_mtls = "127.0.0.1:1"
listen_web = "127.0.0.1:2"
mtls_url = "https://localhost:1"
web_url = "https://localhost:2"
"""


@pytest.mark.parametrize(
    ("address", "allow", "may"),
    [
        ("127.0.0.1", MetricsTable().allow, True),
        ("::1", MetricsTable().allow, True),
        ("::ffff:127.0.0.1", MetricsTable().allow, True),
        ("192.0.2.7", MetricsTable().allow, False),
        ("::ffff:192.0.2.7", MetricsTable().allow, False),
        ("fe80::1%eth0", MetricsTable().allow, False),
        ("", MetricsTable().allow, False),
        ("192.0.2.7", ("192.0.2.0/24",), True),
        ("192.0.3.7", ("192.0.2.0/24", "2001:db8::/32"), False),
        ("2001:db8::9", ("192.0.2.0/24", "2001:db8::/32"), True),
        ("127.0.0.1", (), False),
    ],
)
def test_addresses(address: str, allow: tuple[str, ...], *, may: bool) -> None:
    assert is_allowed(address, allow) is may


def test_hub_toml_names_networks(tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_text(HEAD + '[metrics]\nallow = ["127.0.0.1", "10.0.0.0/8"]\n')

    assert load_hub_config(tmp_path).metrics.allow == ("127.0.0.1", "10.0.0.0/8")


@pytest.mark.parametrize("network", ["prometheus.example.com", "10.0.0.1/8", "10.0.0.0/40", ""])
def test_what_is_no_network_is_refused(tmp_path: Path, network: str) -> None:
    (tmp_path / "hub.toml").write_text(f'{HEAD}[metrics]\nallow = ["{network}"]\n')

    with pytest.raises(ConfigError) as caught:
        load_hub_config(tmp_path)
    assert caught.value.code == "config.network"
