# The emulated PC of the scripts that source this file: Debian's kernel and an initial RAM disk in `$folder`, which is the whole system.
# shellcheck shell=bash disable=SC2154 # $folder is theirs.

# shellcheck source=../../cross/debian.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../cross/debian.sh"

# In the order of their needs: the disk.
modules=(virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk)

# The kernel and its modules, unpacked.
fetch_kernel() {
    need_packages qemu-system-x86 busybox-static cpio binutils e2fsprogs
    [ ! -e "$folder/system/complete" ] || return 0
    local image
    foreign_apt amd64 "$folder/apt"
    image=$(foreign_query depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    foreign_package "$image" "$folder/apt" "$folder/system"
    touch "$folder/system/complete"
}

# begin_initrd PROGRAM INIT CONFIGURATION: busybox, the program with its libraries, and what starts it; in $folder/initrd.d.
begin_initrd() {
    local files=$folder/initrd.d number=0 module library
    rm -rf "$files"
    mkdir -p "$files"/{bin,dev,disk,etc,lib,lib64,modules,proc,sys,tmp}
    cp /bin/busybox "$files/"
    cp "$2" "$files/init"
    cp "$3" "$files/etc/"
    strip -o "$files/bin/rtlive" "$1"
    for library in $(ldd "$1" | grep -o '/[^ ]*'); do cp "$library" "$files/lib/"; done
    mv "$files"/lib/ld-linux* "$files/lib64/"
    for module in "${modules[@]}"; do
        number=$((number + 1))
        cp "$(find "$folder/system/lib/modules" -name "$module.ko")" "$files/modules/$number-$module.ko"
    done
}

end_initrd() {
    (cd "$folder/initrd.d" && find . | cpio --create --format=newc --quiet | gzip -1) > "$folder/initrd"
}

make_disk() {
    rm -f "$folder/disk"
    truncate --size 256M "$folder/disk"
    /sbin/mke2fs -q -t ext4 "$folder/disk"
}

# start_machine WORDS OPTIONS…: starts the machine with these words for init, and goes over into the emulator; its console is the standard output.
start_machine() {
    local words=$1
    shift
    exec qemu-system-x86_64 -machine q35,accel=tcg -cpu max -m 512 -nodefaults -nographic -no-reboot -serial stdio \
        -kernel "$(echo "$folder"/system/boot/vmlinuz-*)" -initrd "$folder/initrd" \
        -append "console=ttyS0 quiet no_timer_check rdinit=/init $words" "$@"
}
