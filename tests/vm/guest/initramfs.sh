#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# First program of the virtual machine: a writable layer in memory over the read-only root file system, then the tests'
# own start from the folder that the host shares.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
  insmod "/modules/$module"
done < /modules/order
# The disk is there when its driver has seen it; nothing tells this small shell of it.
until [ -b /dev/vda ]; do
  sleep 0.05
done
mount -t ext4 -o ro,noload /dev/vda /below
mount -t tmpfs -o size=60% tmpfs /above
mkdir /above/upper /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work overlay /new
mkdir -p /new/tests/vm/guest /new/source /new/deploy /new/results
for tag in source deploy tests/vm/guest; do
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro "${tag##*/}" "/new/$tag"
done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 results /new/results
mount --move /dev /new/dev
umount /proc /sys
exec switch_root /new /bin/sh /tests/vm/guest/start.sh
