//! Loading: which files are read, and what becomes of them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rtlive_core::sorted;

use crate::agent::{MACHINE_ID_FILE, STATE_DIR};
use crate::catalogue::Catalogue;
use crate::check::{Config, check};
use crate::document::Document;
use crate::mistake::{Mistake, Mistakes, Place, Problem};

/// What is read without `-c`: a file, then `conf.d/*.toml` of its folder by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The folder.
    pub folder: &'static str,
    /// The name of the file.
    pub file: &'static str,
}

/// Where the agent's configuration is.
pub const AGENT: Home = Home { folder: "/etc/rtlive", file: "rtlive.toml" };

/// The largest file. A configuration of 1,000 devices has a tenth of that; more is another file by mistake.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The most files.
pub const FILES_MAX: usize = 1_000;

/// Loads and checks an agent's configuration: the files and folders of `paths`, or those of [`AGENT`] if there are none.
///
/// # Errors
/// All mistakes, in the order of files and lines. Files that cannot be read or are no TOML are told alone: what the others lack may
/// stand in them.
pub fn load<I>(paths: &[PathBuf], catalogue: &dyn Catalogue<I>) -> Result<Config<I>, Mistakes> {
    let document = read(paths, AGENT)?;
    let machine_id = std::fs::read_to_string(MACHINE_ID_FILE).ok();
    check(&document, catalogue, machine_id.as_deref())
}

/// Reads and merges the files and folders of `paths`, or those of `home` if there are none.
///
/// # Errors
/// All files that cannot be read, are no TOML, or set a key that another sets too.
pub fn read(paths: &[PathBuf], home: Home) -> Result<Document, Mistakes> {
    let document = gather(paths, home)?;
    let mistakes = document.mistakes();
    if mistakes.0.is_empty() { Ok(document) } else { Err(mistakes) }
}

/// The state folder that a configuration names, or the default: where its agent is reached. Mistakes elsewhere are none here, so that an
/// agent can be asked while the configuration on disk is being changed.
///
/// # Errors
/// All files of `-c` that cannot be read or are no TOML, if the others do not name the folder.
pub fn state_dir(paths: &[PathBuf]) -> Result<PathBuf, Mistakes> {
    let document = match gather(paths, AGENT) {
        Ok(document) => document,
        Err(_) if paths.is_empty() => return Ok(STATE_DIR.into()),
        Err(mistakes) => return Err(mistakes),
    };
    let mistakes = document.mistakes();
    match document.root().table("agent").and_then(|agent| agent.text("state_dir").map(PathBuf::from)) {
        Some(state_dir) => Ok(state_dir),
        None if paths.is_empty() || mistakes.0.is_empty() => Ok(STATE_DIR.into()),
        None => Err(mistakes),
    }
}

/// Reads and merges the files; those that cannot be read or are no TOML are noted in the document.
fn gather(paths: &[PathBuf], home: Home) -> Result<Document, Mistakes> {
    let mut document = Document::default();
    let Home { folder, file } = home;
    let (files, again) = match paths {
        [] => (default_files(home), Vec::new()),
        paths => given_files(paths, &mut document),
    };
    if paths.is_empty() && files.is_empty() {
        let message = format!("no configuration: expected {folder}/{file}, {folder}/conf.d/*.toml, or -c FILE");
        return Err(one(folder, message));
    }
    if files.len() > FILES_MAX {
        return Err(one(folder, format!("expected at most {FILES_MAX} files, found {}", files.len())));
    }
    for file in files {
        let name = file.display().to_string();
        match read_text(&file) {
            Ok(text) => {
                document.add(&name, &text);
            }
            Err(message) => document.add_unreadable(&name, message),
        }
    }
    for file in again {
        document.warn_of_file(&file.display().to_string(), "given twice, and read once".into());
    }
    Ok(document)
}

fn one(file: &str, message: String) -> Mistakes {
    let place = Place { file: file.into(), line: 0, column: 0 };
    Mistakes(vec![Mistake { place, key: String::new(), problem: Problem::File { message } }])
}

/// A folder's files: `*.toml` by name, then those of its `conf.d`. Names that begin with a dot are an editor's.
fn folder_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = toml_files(folder)?;
    let more = folder.join("conf.d");
    if more.is_dir() {
        files.extend(toml_files(&more)?);
    }
    Ok(files)
}

fn toml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") && !path.is_dir() {
            files.push(path);
        }
    }
    sorted::by(&mut files, Ord::cmp);
    Ok(files)
}

/// What is read without `-c`. A folder that cannot be listed counts as empty if it is not there.
fn default_files(home: Home) -> Vec<PathBuf> {
    let folder = Path::new(home.folder);
    let main = folder.join(home.file);
    let mut files: Vec<PathBuf> = main.exists().then_some(main).into_iter().collect();
    files.extend(toml_files(&folder.join("conf.d")).unwrap_or_default());
    files
}

/// The files of `-c`, each once, and those that were given again; folders that cannot be listed or hold none are noted.
fn given_files(paths: &[PathBuf], document: &mut Document) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        if path.is_dir() {
            match folder_files(path) {
                Ok(found) if found.is_empty() => {
                    document.add_unreadable(
                        &path.display().to_string(),
                        "expected *.toml in the folder, found none".into(),
                    );
                }
                Ok(found) => files.extend(found),
                Err(error) => {
                    document.add_unreadable(&path.display().to_string(), format!("list the folder: {error}"));
                }
            }
        } else {
            files.push(path.clone());
        }
    }
    // A file and the folder that it is in: reading it twice would set each of its keys twice.
    let mut seen = Vec::new();
    files.into_iter().partition(|file| {
        let same = file.canonicalize().unwrap_or_else(|_| file.clone());
        let is_new = !seen.contains(&same);
        seen.push(same);
        is_new
    })
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("open the file: {error}"))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| format!("read the file: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("expected a file of at most {} MiB, found more", FILE_BYTES_MAX >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(good).filter(|&&byte| byte == b'\n').count();
        format!("expected UTF-8, found other bytes in line {line}")
    })
}
