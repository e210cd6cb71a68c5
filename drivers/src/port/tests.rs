//! Ports that open, and the hints for those that do not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rtlive_config::document::Document;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::trouble::{self, Holder};
use super::*;
use crate::rig::session;

fn port(options: &str) -> Result<Port, String> {
    let document = Document::of_text("test.toml", options);
    let table = document.root();
    let port = PortOptions::read(&table).and_then(|options| options.check(&table));
    port.filter(|_| document.mistakes().0.is_empty()).ok_or_else(|| document.mistakes().to_string())
}

/// A pseudo-terminal: its other end, and its path.
fn pseudo_terminal() -> (fs::File, PathBuf) {
    let other = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&other).unwrap();
    unlockpt(&other).unwrap();
    let path = PathBuf::from(ptsname(&other, Vec::new()).unwrap().into_string().unwrap());
    (other.into(), path)
}

#[test]
fn exactly_one_place_is_expected() {
    assert!(port("").unwrap_err().contains("expected `port` or `tcp`, found neither"));
    assert!(port("port = 'p'\ntcp = 'a:1'").unwrap_err().contains("expected `port` or `tcp`, found both"));
    assert!(matches!(port("tcp = 'a:1'"), Ok(Port::Tcp(_))));
    assert!(port("port = 'p'\ndata_bits = 9").unwrap_err().contains("from 5 to 8"));
}

#[test]
fn a_character_has_a_start_bit_data_parity_and_stop_bits() {
    for (options, nanos) in [("port = 'p'", 1_041_666), ("port = 'p'\nbaud = 19200\nparity = 'even'", 572_916)] {
        let Ok(Port::Serial(line)) = port(options) else { panic!("{options}") };
        assert_eq!(line.character().as_nanos(), nanos, "{options}");
    }
}

#[tokio::test]
async fn a_pseudo_terminal_is_a_port_and_belongs_to_one() {
    let (mut other, path) = pseudo_terminal();
    let options = format!("port = {path:?}\nbaud = 115200");
    let (session, ..) = session(BTreeMap::new());
    let mut open = port(&options).unwrap().open().await.unwrap();
    // Every byte passes as it is: none is echoed, or taken for a line end or a signal.
    let bytes: Vec<u8> = (0..=255).collect();
    io::Write::write_all(&mut other, &bytes).unwrap();
    let mut received = Vec::new();
    let mut buffer = [0; 100];
    while received.len() < bytes.len() {
        let count = open.receive(&mut buffer, &session).await.unwrap();
        received.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(received, bytes);
    open.send(b"\x01\x04\r\n", &session).await.unwrap();
    let mut sent = [0; 4];
    io::Read::read_exact(&mut other, &mut sent).unwrap();
    assert_eq!(&sent, b"\x01\x04\r\n");

    let error = port(&options).unwrap().open().await.unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("another input of this program"), "{error}");

    drop(other);
    let error = open.receive(&mut buffer, &session).await.unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("unplugged"), "{error}");
}

#[tokio::test]
async fn what_is_no_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("ttyUSB0");
    let error = port(&format!("port = {missing:?}")).unwrap().open().await.unwrap_err().to_string();
    assert!(error.contains("ttyUSB0: No such file") && error.contains("there"), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = port(&format!("port = {file:?}")).unwrap().open().await.unwrap_err().to_string();
    assert!(error.contains("expected a serial port"), "{error}");
    let error = port("port = '/dev/null'").unwrap().open().await.unwrap_err().to_string();
    assert!(error.contains("expected a serial port"), "{error}");
}

#[tokio::test]
async fn a_tcp_peer_is_a_port() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = port(&format!("tcp = '{}'", listener.local_addr().unwrap())).unwrap();
    let (session, ..) = session(BTreeMap::new());
    let mut open = place.open().await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    peer.write_all(b"abc").await.unwrap();
    let mut buffer = [0; 8];
    assert_eq!(open.receive(&mut buffer, &session).await.unwrap(), 3);
    drop((peer, listener));
    let error = open.receive(&mut buffer, &session).await.unwrap_err().to_string();
    assert!(error.contains("closed"), "{error}");
    let error = place.open().await.unwrap_err().to_string();
    assert!(error.contains("nobody listens"), "{error}");
}

#[test]
fn holders_are_found_by_their_files() {
    let (_other, path) = pseudo_terminal();
    let _held = fs::File::open(&path).unwrap();
    let holders = trouble::holders(&fs::metadata(&path).unwrap());
    assert!(holders.iter().any(|holder| holder.pid == std::process::id()), "{holders:?}");
}

#[test]
fn the_advice_depends_on_who_has_the_port() {
    let advice = |name: &str, is_login| {
        trouble::advice(Path::new("/dev/ttyS1"), &[Holder { pid: 0, name: name.into(), is_login }])
    };
    assert!(advice("ModemManager", false).contains("ID_MM_DEVICE_IGNORE"));
    assert!(advice("agetty", false).contains("serial-getty@ttyS1.service"));
    assert!(advice("bash", true).contains("serial-getty@ttyS1.service"));
    assert!(advice("rtlive", false).contains("rtlive tail"));
    assert!(advice("minicom", false).contains("minicom (process 0)"));
}

#[test]
fn who_may_not_open_a_port_is_told_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("port");
    fs::write(&file, "").unwrap();
    let hint = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        trouble::permission(&fs::metadata(&file).unwrap())
    };
    assert!(hint(0o600).contains("udev rule with GROUP=\"dialout\"") && hint(0o600).contains("usermod -aG dialout"));
    // Only root can give a file to another group.
    if std::os::unix::fs::chown(&file, None, Some(20)).is_ok() {
        assert!(hint(0o660).starts_with("`sudo usermod -aG dialout "), "{}", hint(0o660));
    }
}

#[test]
fn the_ports_that_are_there_are_listed() {
    let root = tempfile::tempdir().unwrap();
    assert!(trouble::ports_there(root.path()).contains("plugged in"));
    for (name, kind) in [("ttyS0", "0"), ("ttyS1", "4"), ("ttyUSB0", "")] {
        let folder = root.path().join("sys/class/tty").join(name);
        fs::create_dir_all(folder.join("device")).unwrap();
        fs::write(folder.join("type"), kind).unwrap();
    }
    fs::create_dir_all(root.path().join("sys/class/tty/tty1")).unwrap();
    assert_eq!(trouble::ports_there(root.path()), "there are /dev/ttyS1, /dev/ttyUSB0");
    fs::create_dir_all(root.path().join("dev/serial/by-id/usb-FTDI-if00-port0")).unwrap();
    assert_eq!(trouble::ports_there(root.path()), "there are /dev/serial/by-id/usb-FTDI-if00-port0");
}
