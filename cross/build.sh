#!/usr/bin/env bash
# Builds the gateway program for an ARM target: cross/build.sh TARGET [--demo]. docs/cross-compiling.md describes it.
#
# RTLIVE_CROSS_STD=rustup|debian   where the target's standard library comes from; absent: rustup, and Debian where rustup cannot
# RTLIVE_CROSS_DIR                 where Debian's packages of the target are unpacked; absent: target/cross
# RTLIVE_CROSS_UNSIGNED=1          take Debian's standard library although no signed list of the mirror has it
# CI=1                             install what is missing without asking
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
# shellcheck source=debian.sh
. "$here/debian.sh"

usage() {
    say "usage: cross/build.sh TARGET [--demo]"
    local file
    for file in "$here"/*.env; do say "target: $(basename "$file" .env)"; done
    exit 64
}

target=${1:-}
features=--no-default-features
case ${2:-} in
    '') ;;
    --demo) features=--features=demo ;;
    *) usage ;;
esac
[ -e "$here/$target.env" ] || usage
# shellcheck source=aarch64-unknown-linux-gnu.env
. "$here/$target.env"

output=${CARGO_TARGET_DIR:-$root/target}
folder=${RTLIVE_CROSS_DIR:-$output/cross}
upper=$(tr 'a-z-' 'A-Z_' <<< "$target")
lower=${target//-/_}

cd "$root"
need_packages "gcc-$gnu" "libc6-dev-$debian_arch-cross"
export "CC_$lower=$gnu-gcc" "AR_$lower=$gnu-ar" "CARGO_TARGET_${upper}_LINKER=$gnu-gcc"

# rustup has the target, or can get it.
from_rustup() {
    command -v rustup > /dev/null || { say "rustup is not installed"; return 1; }
    grep -qx "$target" <<< "$(rustup target list --installed)" || rustup target add "$target" >&2
}

# Debian's compiler, which installs beside rustup's, and its standard library for the target.
from_debian() {
    need_packages rustc-web cargo-web libstd-rust-web-dev
    local version apt=$folder/apt-$debian_arch debs=$folder/std-$debian_arch sysroot=$folder/sysroot-$debian_arch
    version=$(dpkg-query --show --showformat='${Version}' rustc-web)
    if [ "$(cat "$debs/version" 2>/dev/null)" != "$version" ]; then
        foreign_apt "$debian_arch" "$apt"
        rm -rf "$debs"
        if ! foreign_package "libstd-rust-web-dev=$version" "$apt" "$debs"; then
            [ -n "${RTLIVE_CROSS_UNSIGNED:-}" ] ||
                die "no signed package list for $debian_arch has libstd-rust-web-dev $version now; wait for the mirror, or see RTLIVE_CROSS_UNSIGNED in docs/cross-compiling.md"
            unsigned_package "libstd-rust-web-dev=$version" "$debian_arch" "$apt" "$debs" || die "no libstd-rust-web-dev $version for $debian_arch"
        fi
        echo "$version" > "$debs/version"
    fi
    mkdir -p "$sysroot/lib/rustlib"
    ln -sfn /usr/lib/rustlib/x86_64-unknown-linux-gnu "$sysroot/lib/rustlib/x86_64-unknown-linux-gnu"
    ln -sfn "$debs/usr/lib/rustlib/$target" "$sysroot/lib/rustlib/$target"
    export CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc "CARGO_TARGET_${upper}_RUSTFLAGS=--sysroot=$sysroot"
}

case ${RTLIVE_CROSS_STD:-} in
    rustup) from_rustup || die "rustup could not add $target" ;;
    debian) from_debian ;;
    '') from_rustup || { say "taking Debian's compiler and standard library for $target"; from_debian; } ;;
    *) die "RTLIVE_CROSS_STD is ${RTLIVE_CROSS_STD}; expected rustup or debian" ;;
esac

"${CARGO:-cargo}" build --locked --release --package rtlive "$features" --target "$target"

binary=$output/$target/release/rtlive
glibc=$("$gnu-objdump" -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
say "$(stat -c %s "$binary") bytes, needs ${glibc/_/ } or newer:"
echo "$binary"
