//! A certificate authority of the tests' own, by the openssl program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::installed;

/// When certificates are valid that should be.
const VALID: [&str; 2] = ["20200101000000Z", "20500101000000Z"];
/// When certificates were valid that are not any more.
const EXPIRED: [&str; 2] = ["20200101000000Z", "20210101000000Z"];

/// A new key, of a kind that is quickly made.
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// What `openssl ca` keeps its books with; paths are below the working directory.
const CONFIGURATION: &str = "
[ca]
default_ca = books
[books]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = anything
unique_subject = no
x509_extensions = leaf
[anything]
commonName = supplied
[leaf]
basicConstraints = CA:FALSE
subjectAltName = ${ENV::NAMES}
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = keyCertSign
";

/// An authority with its files in one folder.
pub struct Authority {
    folder: PathBuf,
    openssl: PathBuf,
}

impl Authority {
    /// Founds one that is named as its folder; `None` where openssl is not installed.
    ///
    /// # Errors
    /// What the system or openssl said.
    pub fn found(folder: &Path) -> io::Result<Option<Self>> {
        let Some(openssl) = installed("openssl") else { return Ok(None) };
        fs::create_dir_all(folder)?;
        fs::write(folder.join("openssl.cnf"), CONFIGURATION)?;
        fs::write(folder.join("index.txt"), "")?;
        fs::write(folder.join("serial"), "01")?;
        let authority = Self { folder: folder.to_owned(), openssl };
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let certificate = "-x509 -extensions authority -keyout ca.key -out ca.pem -days 1000";
        authority.openssl("", &format!("req -config openssl.cnf {KEY} {certificate} -subj /CN={name}"))?;
        Ok(Some(authority))
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Issues a certificate `FILE.pem` with its key `FILE.key` for names such as `DNS:localhost`.
    ///
    /// # Errors
    /// What openssl said.
    pub fn issue(&self, file: &str, names: &str) -> io::Result<()> {
        self.sign(file, names, VALID)
    }

    /// As [`Authority::issue`], with the beginning and the end of its validity: `20260101000000Z`.
    ///
    /// # Errors
    /// What openssl said.
    pub fn issue_for(&self, file: &str, names: &str, validity: [&str; 2]) -> io::Result<()> {
        self.sign(file, names, validity)
    }

    /// As [`Authority::issue`], one that has expired.
    ///
    /// # Errors
    /// What openssl said.
    pub fn issue_expired(&self, file: &str, names: &str) -> io::Result<()> {
        self.sign(file, names, EXPIRED)
    }

    /// A file of the authority.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn sign(&self, file: &str, names: &str, [start, end]: [&str; 2]) -> io::Result<()> {
        let request = format!("-new {KEY} -keyout {file}.key -out {file}.csr -subj /CN={file}");
        self.openssl(names, &format!("req -config openssl.cnf {request}"))?;
        let validity = format!("-startdate {start} -enddate {end}");
        let files = format!("-cert ca.pem -keyfile ca.key -in {file}.csr -out {file}.pem");
        self.openssl(names, &format!("ca -batch -notext -config openssl.cnf {validity} {files}"))
    }

    fn openssl(&self, names: &str, arguments: &str) -> io::Result<()> {
        let mut command = Command::new(&self.openssl);
        command.args(arguments.split(' ')).env("NAMES", names).current_dir(&self.folder);
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr))))
    }
}
