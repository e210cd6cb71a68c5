//! Keys that are pressed, where there is a terminal.

use std::io::{self, IsTerminal, Read};
use std::thread;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// How many keys may wait: nobody means more.
const KEYS_MAX: usize = 8;

/// The keys of a terminal, each as it is pressed; the terminal is as it was when this is dropped.
pub struct Keys {
    keys: mpsc::Receiver<u8>,
    before: Termios,
}

impl Keys {
    /// Listens to the terminal; `None` where input or output is none, so that nothing is waited for.
    ///
    /// # Errors
    /// What the system said.
    pub fn listen() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut settings = before.clone();
        // Ctrl-C stays the terminal's affair.
        settings.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &settings)?;
        let (sender, keys) = mpsc::channel(KEYS_MAX);
        let reader = thread::Builder::new().name("demo-keys".into()).spawn(move || {
            for key in io::stdin().lock().bytes().map_while(Result::ok) {
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        });
        let keys = Self { keys, before };
        reader.map(|_| Some(keys))
    }

    /// The next key; pending for ever without a terminal. May be dropped while it waits.
    pub async fn next(keys: &mut Option<Self>) -> u8 {
        match keys {
            Some(Self { keys, .. }) => match keys.recv().await {
                Some(key) => key,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // A terminal that is gone needs no care.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
