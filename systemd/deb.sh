#!/usr/bin/env bash
# Packs a built program with its unit: `systemd/deb.sh target/release/rtlive`, or for another machine
# `systemd/deb.sh target/aarch64-unknown-linux-gnu/release/rtlive arm64`. Prints the package's path.
set -euo pipefail
cd "$(dirname "$0")/.."

program=${1:?usage: systemd/deb.sh PROGRAM [ARCHITECTURE]}
architecture=${2:-$(dpkg --print-architecture)}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
package=target/rtlive_${version}_$architecture.deb

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
put() { install -D -m "$1" "$2" "$root/$3"; }
put 755 "$program" usr/bin/rtlive
put 644 systemd/rtlive.service usr/lib/systemd/system/rtlive.service
put 644 systemd/sysusers.conf usr/lib/sysusers.d/rtlive.conf
put 644 systemd/tmpfiles.conf usr/lib/tmpfiles.d/rtlive.conf
put 644 systemd/udev.rules usr/lib/udev/rules.d/60-rtlive.rules
put 644 LICENSE usr/share/doc/rtlive/copyright
for example in config/examples/*.toml; do put 644 "$example" "usr/share/doc/rtlive/examples/${example##*/}"; done
for script in postinst prerm postrm; do put 755 "systemd/deb/$script" "DEBIAN/$script"; done
# The newest glibc that the program names, or that knows how its relocations are packed (agent/build.rs).
glibc=$({ grep -ao 'GLIBC_2\.[0-9]*' "$program" | sed 's/GLIBC_//'; if grep -aq GLIBC_ABI_DT_RELR "$program"; then echo 2.36; fi; } | sort -V | tail -n 1)
cat >"$root/DEBIAN/control" <<END
Package: rtlive
Version: $version
Architecture: $architecture
Section: net
Priority: optional
Maintainer: The rtlive authors <rtlive@localhost>
Depends: libc6 (>= ${glibc:-2.34}), libgcc-s1, systemd
Installed-Size: $(du -sk "$root" | cut -f1)
Description: ingestion agent for embedded Linux gateways
 Reads sensors, computes over them in event time, keeps the results in a file
 that survives a power cut, and forwards them to a central MQTT broker.
END
dpkg-deb --root-owner-group -Zzstd --build "$root" "$package" >/dev/null
echo "$package"
