# SPDX-License-Identifier: Apache-2.0
"""Where modules are looked for."""

from pathlib import Path

from privyseal.tokens.places import find_modules, variable_of


def put(root: Path, name: str, text: str = "") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_modules_are_found_once_whatever_leads_to_them(tmp_path: Path) -> None:
    real = put(tmp_path, "usr/lib/libeToken.so.10.8.28")
    (tmp_path / "usr/lib/libeToken.so").symlink_to(real.name)
    put(tmp_path, "usr/lib/x86_64-linux-gnu/opensc-pkcs11.so")
    put(tmp_path, "usr/lib/softhsm/libsofthsm2.so")
    put(tmp_path, "usr/local/lib/libykcs11.so.2")
    put(tmp_path, "usr/safenet/lunaclient/lib/libCryptoki2_64.so")
    put(tmp_path, "Library/OpenSC/lib/opensc-pkcs11.so")
    put(tmp_path, "usr/lib/libc.so.6")

    found = {str(one.path.relative_to(tmp_path)): one.product for one in find_modules(tmp_path)}

    assert found == {
        "usr/lib/libeToken.so": "SafeNet eToken",
        "Library/OpenSC/lib/opensc-pkcs11.so": "OpenSC",
        "usr/lib/x86_64-linux-gnu/opensc-pkcs11.so": "OpenSC",
        "usr/local/lib/libykcs11.so.2": "YubiKey PIV",
        "usr/lib/softhsm/libsofthsm2.so": "SoftHSM2",
        "usr/safenet/lunaclient/lib/libCryptoki2_64.so": "Thales Luna",
    }


def test_p11_kit_names_modules_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, "opt/vendor/libvendor.so")
    put(tmp_path, "usr/lib/x86_64-linux-gnu/pkcs11/other.so")
    put(tmp_path, "usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-trust.so")
    absolute = put(
        tmp_path, "etc/pkcs11/modules/vendor.module", "# ours\n  module: /opt/vendor/libvendor.so\ncritical: no\n"
    )
    put(tmp_path, "usr/share/p11-kit/modules/other.module", "module:other.so")
    put(tmp_path, "usr/share/p11-kit/modules/trust.module", "module: p11-kit-trust.so\n")
    put(tmp_path, "usr/share/p11-kit/modules/far.module", "remote: |ssh host\n")
    put(tmp_path, "usr/share/p11-kit/modules/gone.module", "module: /opt/gone.so\n")
    (tmp_path / "usr/share/p11-kit/modules/binary.module").write_bytes(b"\xff\xfe\x00" * 100)

    found = {one.path.name: one.product for one in find_modules(tmp_path)}

    assert set(found) == {"libvendor.so", "other.so"}
    assert found["libvendor.so"] == str(absolute)


def test_a_module_is_given_only_the_variable_that_is_its_own() -> None:
    assert variable_of("/usr/lib/softhsm/libsofthsm2.so") == "SOFTHSM2_CONF"
    assert variable_of("/usr/lib/yubihsm_pkcs11.so") == "YUBIHSM_PKCS11_CONF"
    assert variable_of("/usr/lib/libeToken.so") == ""
