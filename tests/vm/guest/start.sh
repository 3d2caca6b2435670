#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The virtual machine's only service: the checks that the kernel's command line names, then the end.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /dev/shm /run/pcscd
ip link set lo up 2> /dev/null
/lib/systemd/systemd-udevd --daemon
modprobe -a uhci_hcd ehci_pci
udevadm trigger --action=add
udevadm settle
CARD_PIN=$(cat /results/pin)
export CARD_PIN
program=$(sed 's/.*checks=\([^ ]*\).*/\1/' /proc/cmdline)
PYTHONPATH=/source:/tests PYTHONDONTWRITEBYTECODE=1 python3 "/tests/vm/guest/$program"
sync
echo o > /proc/sysrq-trigger
# The kernel ends the machine soon; it must not see its first process end before.
exec sleep 60
