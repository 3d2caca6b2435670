#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make the machine that the tests in this folder start: kernel, initramfs and root file system of this Debian release,
# from the mirror that apt uses here. Prints the folder that holds them; makes it only if it is not there yet.
#
#   tests/vm/build_image.sh            in $XDG_CACHE_HOME/privyseal/vm (about 350 MB)
#
# debootstrap and mke2fs need root: where we are not, sudo must ask for nothing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/privyseal/vm
[ "$(id -u)" = 0 ] || exec "$here/../../tools/as_root.sh" env XDG_CACHE_HOME="${XDG_CACHE_HOME:-$HOME/.cache}" "$0"

say() { echo "vm image: $*" >&2; }

packages=pcscd,libccid,opensc,opensc-pkcs11,python3,kmod,udev,acl,openssl,usbip,usbutils
initial_modules="virtio_pci virtio_blk ext4 crc32c_generic overlay 9p 9pnet_virtio"
guest_modules="uhci_hcd ehci_pci xhci_pci usbip_host vhci_hcd usb_storage sd_mod virtio_rng virtio_net af_packet"

release=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}") || release=
[ -n "$release" ] || { say "this is not Debian, whose packages the image is made of"; exit 1; }
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
  awk -v release="$release" '$2 == release && $3 == "main" {print $1; exit}')
kernel=$(apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ {print $2; exit}')
[ -n "$mirror" ] && [ -n "$kernel" ] || { say "apt knows no mirror or no linux-image-amd64; apt-get update"; exit 1; }
version=${kernel#linux-image-}

# What is made depends on this script, the initramfs's program and the kernel: another one makes another image.
mark=$({ cat "$0" "$here/guest/initramfs.sh" && echo "$release $kernel"; } | cksum | tr ' ' '-')
image=$cache/$mark
if [ -d "$image" ]; then
  echo "$image"
  exit 0
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/making.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
chmod 0755 "$work"
mkdir "$work/image" "$work/kernel"
cd "$work"

say "making $image with $kernel; this takes some minutes"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || { say "$keyring is missing: apt-get install debian-archive-keyring"; exit 1; }
debootstrap --variant=minbase --keyring="$keyring" --include="$packages" "$release" root "$mirror" > debootstrap.log ||
  { tail -n 20 debootstrap.log >&2; exit 1; }
rm -rf root/var/cache/apt/archives root/var/lib/apt/lists root/usr/share/doc root/usr/share/locale

say "adding the kernel"
# The folder of a download must be open to apt's own account, or it warns.
(cd kernel && apt-get -qq -o APT::Sandbox::User=root download "$kernel" && dpkg -x ./*.deb .)
depmod -b kernel "$version"
with_dependencies() { # module... -> paths, in the order in which they are loaded
  for module in "$@"; do
    modprobe -d "$work/kernel" -S "$version" --show-depends "$module" | awk '$1 == "insmod" {print $2}'
  done | awk '!seen[$0]++'
}
mkdir -p "root/lib/modules/$version"
cp kernel/lib/modules/"$version"/modules.builtin* kernel/lib/modules/"$version"/modules.order "root/lib/modules/$version"
# shellcheck disable=SC2086 # lists of names
with_dependencies $initial_modules $guest_modules | while read -r file; do
  target=root/${file#"$work/kernel/"}
  mkdir -p "$(dirname "$target")"
  cp "$file" "$target"
done
depmod -b root "$version"

mkdir -p initramfs/bin initramfs/modules initramfs/proc initramfs/sys initramfs/dev initramfs/below initramfs/above \
  initramfs/new
cp "$(command -v busybox)" initramfs/bin/busybox
cp "$here/guest/initramfs.sh" initramfs/init
chmod 0755 initramfs/init
# shellcheck disable=SC2086
with_dependencies $initial_modules | while read -r file; do
  cp "$file" initramfs/modules/
  basename "$file"
done > initramfs/modules/order
(cd initramfs && find . | cpio --quiet -o -H newc | gzip -9) > image/initramfs.gz
cp kernel/boot/vmlinuz-"$version" image/vmlinuz
mke2fs -q -t ext4 -O ^has_journal -d root image/root.img 700M

mv image "$image"
say "made $image"
echo "$image"
