//! The cable between agent and broker: passes bytes on, and can be pulled.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A cable on a free port of the loopback.
pub struct Cable {
    /// Where the agent connects.
    pub address: SocketAddr,
    plugged: watch::Sender<bool>,
}

impl Cable {
    /// Lays a cable to `broker`.
    ///
    /// # Errors
    /// What the system said.
    pub async fn lay(broker: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (plugged, state) = watch::channel(true);
        tokio::spawn(async move {
            // An error of accept means that the listener is gone, which is the end of the demo.
            while let Ok((agent, _)) = listener.accept().await {
                if *state.borrow() {
                    tokio::spawn(pass(agent, broker, state.clone()));
                }
            }
        });
        Ok(Self { address, plugged })
    }

    /// Pulls the cable: open connections break, new ones are closed at once.
    pub fn pull(&self) {
        self.plugged.send_replace(false);
    }

    /// Plugs it in again.
    pub fn plug(&self) {
        self.plugged.send_replace(true);
    }

    /// Whether it is plugged in.
    pub fn is_plugged(&self) -> bool {
        *self.plugged.borrow()
    }
}

async fn pass(mut agent: TcpStream, broker: SocketAddr, mut plugged: watch::Receiver<bool>) {
    let Ok(mut broker) = TcpStream::connect(broker).await else { return };
    tokio::select! {
        // However the connection ends, both sides see it end.
        _ = copy_bidirectional(&mut agent, &mut broker) => {}
        _ = plugged.wait_for(|plugged| !plugged) => {}
    }
}
