//! Figures for those who watch: counters and lags in the text format of Prometheus, over HTTP, at an address that the configuration names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rtlive_core::time::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::counts::Counts;

/// How many agents have a lag of their own; those beyond it are counted with all others, and have none.
const AGENTS_MAX: usize = 16_384;

/// How long a request is.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// How long a request and its answer may take; requests are answered one after the other.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long nothing is accepted after the system had no room for a connection.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of this process, shared by the intake and whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Figures(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    counts: Counts,
    /// The latest event time in a frame of each agent.
    newest: BTreeMap<Arc<str>, Timestamp>,
}

impl Figures {
    /// A frame of an agent came, with records up to an event time.
    pub fn note_frame(&self, agent: &Arc<str>, latest: Timestamp) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inner.newest.get_mut(agent) {
            *known = latest.max(*known);
        } else if inner.newest.len() < AGENTS_MAX {
            inner.newest.insert(Arc::clone(agent), latest);
        }
    }

    /// A batch is committed.
    pub fn note_counts(&self, counts: &Counts) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counts = *counts;
    }

    /// What was counted up to the last commit.
    pub fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// The figures as text.
    pub fn text(&self, now: Timestamp) -> String {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, help, value) in inner.counts.all() {
            let name = format!("rtlive_receiver_{name}_total");
            // A string always has room.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
        }
        let name = "rtlive_receiver_lag_seconds";
        let help = "How long ago the latest event time was of which a record of the agent came.";
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (agent, newest) in &inner.newest {
            let lag = lag_s(now, *newest);
            // The id of an agent has no characters that would have to be escaped.
            let _ = writeln!(text, "{name}{{agent=\"{agent}\"}} {lag}");
        }
        text
    }

    /// The figures for the log: every counter, and how far the agents lag.
    pub fn summary(&self, now: Timestamp) -> String {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = inner.counts.all().map(|(name, _, value)| format!("{name} {value}"));
        let mut text = counts.join(", ");
        if let Some((agent, newest)) = inner.newest.iter().min_by_key(|(_, newest)| **newest) {
            // A string always has room.
            let _ =
                write!(text, "; of {} agents {agent} lags most, by {:.1} s", inner.newest.len(), lag_s(now, *newest));
        }
        text
    }
}

fn lag_s(now: Timestamp, newest: Timestamp) -> f64 {
    now.as_nanos().saturating_sub(newest.as_nanos()) as f64 / 1e9
}

/// Listens at an address. To be called within a runtime.
///
/// # Errors
/// What the system said.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Answers requests for `/metrics`. Does not end; may be dropped at any time.
pub async fn serve(listener: TcpListener, figures: Figures) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Whoever asks and goes away, or says nothing, gets nothing.
                let _ = tokio::time::timeout(ANSWER_WITHIN, answer(stream, &figures)).await;
            }
            Err(error) => {
                tracing::warn!("accept a request for metrics: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, figures: &Figures) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let room = REQUEST_BYTES_MAX.saturating_sub(request.len());
        if (&mut stream).take(room as u64).read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let is_right = [&b"GET /metrics "[..], b"GET /metrics?"].iter().any(|start| request.starts_with(start));
    let (status, body) =
        if is_right { ("200 OK", figures.text(now())) } else { ("404 Not Found", "expected /metrics\n".into()) };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// The time of the system's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_counter_and_a_lag_for_each_agent() {
        let figures = Figures::default();
        figures.note_counts(&Counts { records: 7, ..Counts::default() });
        figures.note_frame(&"a".into(), Timestamp::from_nanos(5_000_000_000));
        figures.note_frame(&"a".into(), Timestamp::from_nanos(4_000_000_000));
        let text = figures.text(Timestamp::from_nanos(7_500_000_000));
        assert!(text.contains("\nrtlive_receiver_records_total 7\n"), "{text}");
        assert!(text.ends_with("\nrtlive_receiver_lag_seconds{agent=\"a\"} 2.5\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE")).count(), 13);
        let summary = figures.summary(Timestamp::from_nanos(7_500_000_000));
        assert!(
            summary.contains(", records 7, ") && summary.ends_with("of 1 agents a lags most, by 2.5 s"),
            "{summary}"
        );
    }
}
