# Debian packages for the scripts that source this file: those of this machine, which are installed after a question, and those of
# another architecture, which are only unpacked into a folder and change nothing on this machine.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }
die() { say "$0: $*"; exit 1; }

# need_packages PACKAGE…: lists those that are not installed, asks (not where CI is 1 or true), and installs them.
need_packages() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "These Debian packages are needed and not installed: ${missing[*]}"
    ask "Install them with apt-get?" || die "expected these packages: apt-get install --no-install-recommends ${missing[*]}"
    as_root apt-get update --quiet >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "${missing[@]}" >&2
}

# ask QUESTION: yes where CI is 1 or true, no without a terminal.
ask() {
    local answer
    case ${CI:-} in 1 | true) return 0 ;; esac
    [ -t 0 ] || { say "$1 No terminal to ask on; CI=1 answers yes."; return 1; }
    read -r -p "$1 [y/N] " answer
    [[ $answer == [yY]* ]]
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# foreign_apt ARCH FOLDER: fetches the package lists of another architecture into FOLDER, with Debian's own sources of this machine.
# The architecture is not added to this machine: a single stale list of it would then stop `apt-get update` here.
foreign_apt() {
    local arch=$1 folder=$2 sources=/etc/apt/sources.list
    mkdir -p "$folder"/{lists,cache,parts}/partial "$folder/debs"
    : > "$folder/status"
    if [ -e /etc/apt/sources.list.d/debian.sources ]; then
        cp /etc/apt/sources.list.d/debian.sources "$folder/parts/"
        sources=/dev/null
    fi
    foreign_options=(-o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o APT::Sandbox::User=root
        -o "Dir::State::Lists=$folder/lists" -o "Dir::State::status=$folder/status" -o "Dir::Cache=$folder/cache"
        -o "Dir::Etc::SourceParts=$folder/parts" -o "Dir::Etc::SourceList=$sources")
    # A list that could not be fetched shows when a package of it is wanted.
    apt-get "${foreign_options[@]}" --quiet --quiet update >&2 || say "some package lists of $arch could not be fetched"
}

# foreign_query …: apt-cache over the lists of the last foreign_apt.
foreign_query() { apt-cache "${foreign_options[@]}" "$@"; }

# foreign_package PACKAGE[=VERSION] FOLDER ROOT: unpacks one package of the architecture of the last foreign_apt below ROOT.
foreign_package() {
    local package=$1 folder=$2 root=$3
    rm -f "$folder/debs/${package%%=*}"_*.deb
    (cd "$folder/debs" && apt-get "${foreign_options[@]}" --quiet --quiet download "$package" >&2) || return 1
    mkdir -p "$root"
    dpkg --extract "$folder/debs/${package%%=*}"_*.deb "$root"
}

# unsigned_package PACKAGE=VERSION ARCH FOLDER ROOT: the same where the mirror's list of the security suite is not the one that its signature
# covers, as happens while a mirror is behind. The checksum is that of this list, which nothing vouches for: only for those who asked for it.
unsigned_package() {
    local package=${1%%=*} version=${1#*=} arch=$2 folder=$3 root=$4 suite mirror list entry
    # shellcheck disable=SC2016 # apt replaces these.
    read -r suite mirror < <(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' | grep -m 1 '^[a-z]*-security ')
    list=$folder/debs/Packages.xz
    fetch() { /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file "$@" >&2; }
    fetch "${mirror}dists/$suite/main/binary-$arch/Packages.xz" "$list" || return 1
    entry=$(xz --decompress --stdout "$list" | awk -v RS= -v want="$package $version" '
        { split("", field); for (i = 1; i < NF; i++) if ($i ~ /:$/) field[$i] = $(i + 1) }
        field["Package:"] " " field["Version:"] == want { print field["Filename:"], field["SHA256:"] }')
    [ -n "$entry" ] || return 1
    fetch "$mirror${entry% *}" "$folder/debs/$package.deb" "SHA256:${entry#* }" || return 1
    mkdir -p "$root"
    dpkg --extract "$folder/debs/$package.deb" "$root"
}
