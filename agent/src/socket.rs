//! The local socket: how `rtlive tail`, `status` and `reload` reach the running agent.
//!
//! A Unix stream socket. A client sends one request, a JSON object on a line; the agent answers with JSON lines and closes. Who may
//! open the socket may ask everything; its permissions are those of its folder (`/run/rtlive` belongs to the service's user).

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::selector::Selector;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use crate::tail::TailItem;

/// Where a service's socket lies; the unit's `RuntimeDirectory` makes the folder.
const SERVICE_FOLDER: &str = "/run/rtlive";

/// The socket's name.
const SOCKET_NAME: &str = "rtlive.sock";

/// How long a request may be, in bytes. A selector is at most a series name, so this is plenty.
const REQUEST_BYTES_MAX: u64 = 4096;

/// How long a client may take to send its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// How many clients may be served at once: a few people with a terminal each. More are turned away.
const CLIENTS_MAX: usize = 16;

/// How long the agent may take to answer: a reload may have to end all inputs and the uplink, which their bounds let take half of this.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What a client asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Request {
    /// The status, as one line.
    Status,
    /// Reload the configuration; the answer is a [`Verdict`].
    Reload,
    /// Records as they come, until the client goes.
    Tail {
        /// Only of these series.
        select: Selector,
    },
}

/// The answer to a reload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the agent runs on the new configuration.
    pub taken: bool,
    /// The mistakes, or what changed.
    pub text: String,
}

/// What the socket passes on to the agent.
pub enum SocketRequest {
    /// The status as a line of JSON.
    Status(oneshot::Sender<String>),
    /// Reload.
    Reload(oneshot::Sender<Verdict>),
}

/// Where the socket of an agent with this state folder lies: in the service's runtime folder when the state folder is the service's and
/// the folder is there, else below the state folder.
pub fn path(state_dir: &Path) -> PathBuf {
    let service = Path::new(SERVICE_FOLDER);
    if state_dir == Path::new(rtlive_config::STATE_DIR) && service.is_dir() {
        service.join(SOCKET_NAME)
    } else {
        state_dir.join(SOCKET_NAME)
    }
}

/// Opens the socket. A file that an agent left behind is replaced; the lock of the state folder has made sure that it is not in use.
///
/// # Errors
/// What the system said.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves clients until it is dropped.
pub async fn serve(listener: UnixListener, agent: mpsc::Sender<SocketRequest>, tail: broadcast::Sender<TailItem>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                // Out of file descriptors, for one; it passes, and the agent's work does not depend on it.
                tracing::warn!(%error, "the local socket could not take a client");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(clients = CLIENTS_MAX, "the local socket has no room for another client");
            continue;
        };
        let (agent, tail) = (agent.clone(), tail.clone());
        tokio::spawn(async move {
            if let Err(error) = answer(client, agent, tail).await {
                tracing::debug!(%error, "a client of the local socket went away");
            }
            drop(place);
        });
    }
}

async fn answer(
    client: UnixStream,
    agent: mpsc::Sender<SocketRequest>,
    tail: broadcast::Sender<TailItem>,
) -> io::Result<()> {
    let (reader, mut writer) = client.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(REQUEST_BYTES_MAX));
    tokio::time::timeout(REQUEST_WITHIN, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(Request::Status) => ask(&agent, SocketRequest::Status).await?,
        Ok(Request::Reload) => {
            serde_json::to_string(&ask(&agent, SocketRequest::Reload).await?).map_err(io::Error::other)?
        }
        Ok(Request::Tail { select }) => return follow(&mut writer, tail.subscribe(), &select).await,
        Err(error) => serde_json::json!({ "error": format!("expected a request, {error}") }).to_string(),
    };
    writer.write_all(answer.as_bytes()).await?;
    writer.write_all(b"\n").await
}

async fn ask<T>(
    agent: &mpsc::Sender<SocketRequest>,
    request: impl FnOnce(oneshot::Sender<T>) -> SocketRequest,
) -> io::Result<T> {
    let stopped = || io::Error::new(io::ErrorKind::NotConnected, "the agent stops");
    let (reply, answer) = oneshot::channel();
    agent.send(request(reply)).await.map_err(|_| stopped())?;
    answer.await.map_err(|_| stopped())
}

async fn follow<W: tokio::io::AsyncWrite + Unpin>(
    writer: &mut W,
    mut tail: broadcast::Receiver<TailItem>,
    select: &Selector,
) -> io::Result<()> {
    // A client that reads too slowly keeps only this task waiting; what it misses it is told by the number of what comes next.
    let (mut expected, mut text) = (None, String::new());
    loop {
        match tail.recv().await {
            Ok(item) => expected = Some(item.write(select, expected, &mut text)),
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return Ok(()),
        }
        writer.write_all(text.as_bytes()).await?;
        text.clear();
    }
}

/// A blocking client, for the commands. An answer that does not come within [`ANSWER_WITHIN`] is an error; records may take their time.
///
/// # Errors
/// What the system said; `NotFound` and `ConnectionRefused` mean that no agent runs there.
pub fn request(path: &Path, request: &Request) -> io::Result<impl Iterator<Item = io::Result<String>> + use<>> {
    use std::io::{BufRead, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    if !matches!(request, Request::Tail { .. }) {
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    }
    let mut line = serde_json::to_string(request).map_err(io::Error::other)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    Ok(io::BufReader::new(stream).lines())
}
