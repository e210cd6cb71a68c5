//! Endpoints: where a peer is reached over the network.

use std::fmt;

use crate::table::Value;
use crate::value::{Setting, or_wrong, parse};

/// The port of MQTT over TCP (IANA: `mqtt`).
const MQTT_PORT: u16 = 1883;

/// The port of MQTT over TLS (IANA: `secure-mqtt`).
const MQTTS_PORT: u16 = 8883;

/// The port of NATS, with TLS or without (IANA: `nats`).
const NATS_PORT: u16 = 4222;

/// A host and a port: `"10.0.0.5:502"`, `"plc.example:502"`, `"[fe80::1]:502"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port; not 0.
    pub port: u16,
}

/// An MQTT broker: `"mqtt://127.0.0.1"`, `"mqtts://broker.example.net:8883"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broker {
    /// Whether TLS is spoken (`mqtts`).
    pub tls: bool,
    /// Where.
    pub address: HostPort,
}

/// A NATS server: `"nats://127.0.0.1"`, `"tls://nats.example.net:4222"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NatsServer {
    /// Whether TLS is spoken (`tls`).
    pub tls: bool,
    /// Where.
    pub address: HostPort,
}

/// A peer whose scheme says whether TLS is spoken to it.
pub trait Peer: fmt::Display {
    /// The scheme with TLS.
    const SECURE: &'static str;

    /// Whether TLS is spoken.
    fn is_secure(&self) -> bool;

    /// Where.
    fn address(&self) -> &HostPort;
}

impl Peer for Broker {
    const SECURE: &'static str = "mqtts";

    fn is_secure(&self) -> bool {
        self.tls
    }

    fn address(&self) -> &HostPort {
        &self.address
    }
}

impl Peer for NatsServer {
    const SECURE: &'static str = "tls";

    fn is_secure(&self) -> bool {
        self.tls
    }

    fn address(&self) -> &HostPort {
        &self.address
    }
}

impl HostPort {
    /// Whether it is reached without leaving this machine.
    pub fn is_this_machine(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "mqtts" } else { "mqtt" }, self.address)
    }
}

impl fmt::Display for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "tls" } else { "nats" }, self.address)
    }
}

impl Setting for HostPort {
    fn expected() -> String {
        "a host and a port such as \"10.0.0.5:502\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| parse_host_port(text, None))
    }
}

impl Setting for Broker {
    fn expected() -> String {
        "a broker such as \"mqtt://127.0.0.1:1883\" or \"mqtts://broker.example.net:8883\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        if has_login(value, "a broker") {
            return None;
        }
        or_wrong(value, value.as_text().and_then(parse_broker))
    }
}

impl Setting for NatsServer {
    fn expected() -> String {
        "a NATS server such as \"nats://127.0.0.1:4222\" or \"tls://nats.example.net:4222\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        if has_login(value, "a server") {
            return None;
        }
        or_wrong(value, value.as_text().and_then(parse_nats_server))
    }
}

/// Notes a mistake where a login stands in the address: what stands before an @ may be a password, which a message must not repeat.
fn has_login(value: &Value<'_>, what: &str) -> bool {
    let found = value.as_text().is_some_and(|text| text.contains('@'));
    if found {
        let keys = "`username` and `password` are keys of their own";
        value.mistake(format_args!("{what} without a login ({keys})"), "one with an @ in it");
    }
    found
}

fn parse_broker(text: &str) -> Option<Broker> {
    let (scheme, rest) = text.split_once("://")?;
    let (tls, port) = match scheme {
        "mqtt" => (false, MQTT_PORT),
        "mqtts" => (true, MQTTS_PORT),
        _ => return None,
    };
    let address = parse_host_port(rest.strip_suffix('/').unwrap_or(rest), Some(port))?;
    Some(Broker { tls, address })
}

fn parse_nats_server(text: &str) -> Option<NatsServer> {
    let (scheme, rest) = text.split_once("://")?;
    let tls = match scheme {
        "nats" => false,
        "tls" => true,
        _ => return None,
    };
    let address = parse_host_port(rest.strip_suffix('/').unwrap_or(rest), Some(NATS_PORT))?;
    Some(NatsServer { tls, address })
}

/// A host and a port; the port may be absent where there is a `default_port`.
fn parse_host_port(text: &str, default_port: Option<u16>) -> Option<HostPort> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, after)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (host, after) = text.split_at(end);
            let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
            if host.is_empty() || !host.chars().all(allowed) {
                return None;
            }
            (host, after)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|&port| port > 0)?,
        None if port.is_empty() => default_port?,
        _ => return None,
    };
    Some(HostPort { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for text in ["10.0.0.5:502", "plc.example:1", "[fe80::1]:65535", "a_b-c:80"] {
            assert_eq!(parse_host_port(text, None).unwrap().to_string(), text);
        }
        for text in
            ["", ":502", "a", "a:", "a:0", "a:65536", "a:+5", "fe80::1:502", "[x]:5", "a b:5", "a/b:5", "[::1]5"]
        {
            assert_eq!(parse_host_port(text, None), None, "{text}");
        }
    }

    #[test]
    fn brokers() {
        for (text, written) in [
            ("mqtt://127.0.0.1", "mqtt://127.0.0.1:1883"),
            ("mqtts://b.example.net", "mqtts://b.example.net:8883"),
            ("mqtts://[::1]:1/", "mqtts://[::1]:1"),
        ] {
            assert_eq!(parse_broker(text).unwrap().to_string(), written);
        }
        for text in ["127.0.0.1:1883", "tcp://a:1", "mqtt://", "mqtt://a:b", "mqtt://a/path"] {
            assert_eq!(parse_broker(text), None, "{text}");
        }
    }

    #[test]
    fn nats_servers() {
        for (text, written) in [("nats://127.0.0.1", "nats://127.0.0.1:4222"), ("tls://[::1]:1/", "tls://[::1]:1")] {
            assert_eq!(parse_nats_server(text).unwrap().to_string(), written);
        }
        for text in ["127.0.0.1:4222", "mqtt://a:1", "nats://", "nats://a/path"] {
            assert_eq!(parse_nats_server(text), None, "{text}");
        }
    }
}
