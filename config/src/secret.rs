//! Secrets: references to passwords and keys, which never stand in the configuration itself.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::table::Value;
use crate::value::Setting;

/// The longest secret: a password or token; a larger file is a mistake of the path.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret is found when it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Secret {
    /// In a file; the line end at its end does not belong to it.
    File(PathBuf),
    /// In a credential that systemd passed to the service (`LoadCredential=`, systemd.exec(5)).
    Credential(String),
    /// In a variable of the environment.
    Env(String),
}

/// A secret's text. Neither `Debug` nor a log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file, or the credential's file, could not be read.
    #[error("read the secret in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// systemd passed no credentials at all.
    #[error(
        "the credential {0} was not passed: expected CREDENTIALS_DIRECTORY, which systemd sets for a service with LoadCredential="
    )]
    NoCredentials(String),
    /// The variable is not set, or not UTF-8.
    #[error("expected the secret in the environment variable {0}, which is not set or not UTF-8")]
    NoVariable(String),
}

impl SecretText {
    /// The text itself, for the login.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

impl Secret {
    /// Fetches the secret. Called at every login, so that a changed password needs no restart.
    ///
    /// # Errors
    /// [`SecretError`] says where it was looked for.
    pub fn fetch(&self) -> Result<SecretText, SecretError> {
        match self {
            Self::File(path) => read_file(path),
            Self::Credential(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(directory) => read_file(&Path::new(&directory).join(name)),
                None => Err(SecretError::NoCredentials(name.clone())),
            },
            Self::Env(name) => std::env::var(name).map(SecretText).map_err(|_| SecretError::NoVariable(name.clone())),
        }
    }
}

fn read_file(path: &Path) -> Result<SecretText, SecretError> {
    let error = |source| SecretError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(error)?;
    let length = io::Read::read_to_string(&mut io::Read::take(file, SECRET_BYTES_MAX + 1), &mut text).map_err(error)?;
    if length as u64 > SECRET_BYTES_MAX {
        let cause = format!("expected at most {SECRET_BYTES_MAX} bytes, found more");
        return Err(error(io::Error::new(io::ErrorKind::FileTooLarge, cause)));
    }
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(SecretText(text))
}

impl Setting for Secret {
    fn expected() -> String {
        "a reference: { file = \"PATH\" }, { credential = \"NAME\" } or { env = \"NAME\" }".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let Some(table) = value.as_table() else {
            let found = match value.as_text() {
                // Never repeated: messages end in logs and tickets.
                Some(_) => "plain text, which everyone who reads the configuration or a backup of it would see".into(),
                None => value.found(),
            };
            value.mistake(Self::expected(), found);
            return None;
        };
        let file: Option<Option<PathBuf>> = table.read("file", None);
        let credential: Option<Option<String>> = table.read("credential", None);
        let env: Option<Option<String>> = table.read("env", None);
        table.close();
        match (file?, credential?, env?) {
            (Some(path), None, None) => Some(Self::File(path)),
            // A credential is a file's name below a directory that systemd chose; a path would leave it.
            (None, Some(name), None) if !name.contains('/') && !name.starts_with('.') => Some(Self::Credential(name)),
            (None, Some(name), None) => {
                table.mistake("credential", "the name of a credential", format!("{name:?}"));
                None
            }
            (None, None, Some(name)) => Some(Self::Env(name)),
            // A key that is no reference was told as unknown.
            (None, None, None) if table.keys().next().is_some() => None,
            (None, None, None) => {
                table.mistake("", Self::expected(), "an empty table");
                None
            }
            _ => {
                table.mistake("", "only one of file, credential and env", "several");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_loses_its_line_end_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, " pass word \r\n").unwrap();
        assert_eq!(Secret::File(path.clone()).fetch().unwrap().expose(), " pass word ");
        std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert!(Secret::File(path).fetch().is_err());
        assert!(matches!(Secret::Env("RTLIVE_NO_SUCH".into()).fetch(), Err(SecretError::NoVariable(_))));
    }

    #[test]
    fn no_debug_output_shows_it() {
        assert_eq!(format!("{:?}", SecretText("hunter2".into())), "SecretText(…)");
    }
}
