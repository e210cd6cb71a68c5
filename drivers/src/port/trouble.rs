//! What a user can do about a serial port that does not open: hints for messages.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rtlive_core::sorted;

/// The most ports that a message lists.
const PORTS_LISTED_MAX: usize = 8;
/// The most programs that a message lists.
const HOLDERS_LISTED_MAX: usize = 4;
/// What `/sys/class/tty/NAME/type` says of a UART that is not there (`PORT_UNKNOWN`).
const NO_UART: &str = "0";
/// The bits of a mode with which a group may read and write (inode(7)).
const GROUP_MAY: u32 = 0o060;
/// The field of `/proc/PID/stat` with the controlling terminal, counted after the name in parentheses (proc_pid_stat(5), `tty_nr`).
const CONTROLLING_TERMINAL_FIELD: usize = 4;

/// The ports that there are, for one that is missing; `root` is `/`.
pub(super) fn ports_there(root: &Path) -> String {
    let by_id = root.join("dev/serial/by-id");
    let mut ports: Vec<String> = entries(&by_id).into_iter().map(|name| format!("/dev/serial/by-id/{name}")).collect();
    if ports.is_empty() {
        let class = root.join("sys/class/tty");
        let is_port = |name: &String| {
            let folder = class.join(name);
            let kind = fs::read_to_string(folder.join("type")).unwrap_or_default();
            folder.join("device").exists() && kind.trim() != NO_UART
        };
        ports = entries(&class).into_iter().filter(is_port).map(|name| format!("/dev/{name}")).collect();
    }
    if ports.is_empty() {
        return "no serial port is there; is the adapter plugged in? `dmesg` tells what the kernel saw".into();
    }
    let more = if ports.len() > PORTS_LISTED_MAX { ", …" } else { "" };
    ports.truncate(PORTS_LISTED_MAX);
    format!("there are {}{more}", ports.join(", "))
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    sorted::by(&mut names, Ord::cmp);
    names
}

/// What to do when the user may not open the device.
pub(super) fn permission(device: &Metadata) -> String {
    let uid = rustix::process::geteuid().as_raw();
    let user = name_of("/etc/passwd", uid).unwrap_or_else(|| uid.to_string());
    let may_group = device.gid() != 0 && device.mode() & GROUP_MAY == GROUP_MAY;
    let group = name_of("/etc/group", device.gid()).filter(|_| may_group);
    let first = if group.is_some() {
        ""
    } else {
        "root alone may; a udev rule with GROUP=\"dialout\", MODE=\"0660\" changes that; then "
    };
    let group = group.unwrap_or_else(|| "dialout".into());
    format!("{first}`sudo usermod -aG {group} {user}`, and start the program anew")
}

/// The name of a user or a group: the first field of the line whose third is the number (passwd(5), group(5)).
fn name_of(file: &str, id: u32) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let id = id.to_string();
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(&id))?;
    line.split(':').next().map(Into::into)
}

/// A program that has a device open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) name: String,
    /// Whether it is the terminal of a login.
    pub(super) is_login: bool,
}

/// Who has the port, when it cannot be opened.
pub(super) fn busy(path: &Path, device: &Metadata) -> String {
    let holders = holders(device);
    match holders.is_empty() {
        true => format!("another program has it open; `sudo fuser -v {}` names it", path.display()),
        false => advice(path, &holders),
    }
}

/// Who else has the port open, although it could be opened.
pub(super) fn shared_with(path: &Path, device: &Metadata) -> Option<String> {
    let mut holders = holders(device);
    holders.retain(|holder| holder.pid != std::process::id());
    (!holders.is_empty()).then(|| advice(path, &holders))
}

/// The programs that have a device open, as far as this user may see: their files, and their controlling terminal, which everyone may.
pub(super) fn holders(device: &Metadata) -> Vec<Holder> {
    let mut holders = Vec::new();
    for pid in entries(Path::new("/proc")).iter().filter_map(|name| name.parse::<u32>().ok()) {
        let process = Path::new("/proc").join(pid.to_string());
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let terminal = fields.split_whitespace().nth(CONTROLLING_TERMINAL_FIELD).and_then(|field| field.parse().ok());
        let is_login = terminal == Some(encoded(device.rdev()));
        let is_same = |file: &Metadata| file.file_type().is_char_device() && file.rdev() == device.rdev();
        let files = || fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        if is_login || files().any(|file| fs::metadata(file.path()).is_ok_and(|file| is_same(&file))) {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned();
            holders.push(Holder { pid, name, is_login });
        }
    }
    holders
}

/// A device number as `/proc/PID/stat` writes it: the minor number in bits 31–20 and 7–0, the major in 19–8.
fn encoded(device: u64) -> i64 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    i64::from(((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)).cast_signed())
}

pub(super) fn advice(path: &Path, holders: &[Holder]) -> String {
    let device = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let device = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let advice = holders.iter().take(HOLDERS_LISTED_MAX).map(|holder| {
        let Holder { pid, name, is_login } = holder;
        if *pid == std::process::id() {
            return "another input of this program reads it".into();
        }
        match name.as_str() {
            "ModemManager" => format!(
                "ModemManager (process {pid}) looks for a modem at it: `sudo systemctl disable --now ModemManager`, or a udev rule \
                 with ENV{{ID_MM_DEVICE_IGNORE}}=\"1\" for the adapter"
            ),
            "gpsd" => format!("gpsd (process {pid}) reads it: `sudo systemctl disable --now gpsd.socket gpsd`"),
            "rtlive" => format!("rtlive (process {pid}) reads it: `rtlive tail` shows what it reads"),
            name if *is_login || name.ends_with("getty") || name == "login" => format!(
                "{name} (process {pid}) has a login there: `sudo systemctl disable --now serial-getty@{device}.service`, and remove \
                 console={device} from the kernel's command line"
            ),
            name => format!("{name} (process {pid}) has it open: end that program"),
        }
    });
    advice.collect::<Vec<_>>().join("; ")
}
