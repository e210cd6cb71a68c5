//! MQTT 3.1.1. Its PUBACK carries no reason: a broker that denies a publish either closes the connection or acknowledges it and
//! throws it away (section 3.3.5), which cannot be told from delivery.

use std::error::Error;

use rtlive_core::uplink::{Limits, Loss, Verdict, sender};
use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    StateError, SubscribeReasonCode,
};

use super::{
    Failure, Heard, LinkError, Peer, RECEIVED_BYTES_MAX, REQUESTS_MAX, Wire, credentials, host, is_closed,
    network_options, transport,
};

pub(super) struct Loop {
    events: Box<EventLoop>,
    connected: bool,
}

pub(super) fn client(peer: &Peer, offline: Vec<u8>) -> Result<(AsyncClient, Loop), LinkError> {
    let mut options = MqttOptions::new(&peer.client_id, host(&peer.broker), peer.broker.address.port);
    options
        .set_clean_session(true)
        .set_keep_alive(peer.keep_alive)
        .set_max_packet_size(RECEIVED_BYTES_MAX as usize, Limits::NONE.packet_bytes_max as usize)
        .set_inflight(sender::MESSAGES_MAX)
        .set_last_will(LastWill::new(&peer.status_topic, offline, QoS::AtLeastOnce, true))
        .set_transport(transport(peer)?);
    if let Some((username, password)) = credentials(peer)? {
        options.set_credentials(username, password);
    }
    let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
    events.set_network_options(network_options(peer));
    Ok((client, Loop { events: Box::new(events), connected: false }))
}

impl Wire for Loop {
    async fn next(&mut self) -> Result<Heard, Failure> {
        match self.events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                self.connected = true;
                Ok(Heard::Connected(Limits::NONE))
            }
            Ok(event) => Ok(heard(event)),
            Err(error) => Err(failure(&error, self.connected)),
        }
    }

    fn rest(&mut self) -> Vec<Heard> {
        self.events.state.events.drain(..).map(heard).collect()
    }
}

fn heard(event: Event) -> Heard {
    match event {
        Event::Outgoing(Outgoing::Publish(id)) => Heard::Sent(id),
        Event::Outgoing(Outgoing::Disconnect) => Heard::Goodbye,
        Event::Incoming(Packet::PubAck(answer)) => Heard::Answered(answer.pkid, Verdict::Taken),
        Event::Incoming(Packet::Publish(message)) => Heard::Received(message.payload.into()),
        Event::Incoming(Packet::SubAck(answer))
            if !answer.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))) =>
        {
            Heard::SubscriptionRefused
        }
        _ => Heard::Nothing,
    }
}

fn failure(error: &ConnectionError, connected: bool) -> Failure {
    let root: &(dyn Error + 'static) = match error {
        ConnectionError::ConnectionRefused(code) => return refused(*code),
        ConnectionError::MqttState(StateError::ConnectionAborted) => return Failure::closed(connected),
        ConnectionError::Io(io)
        | ConnectionError::MqttState(StateError::Io(io) | StateError::Deserialization(PacketError::Io(io))) => {
            if is_closed(io) {
                return Failure::closed(connected);
            }
            io
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            let cause = "the broker did not answer a ping".into();
            return Failure { cause, hint: None, loss: Loss::Broken, version_refused: false };
        }
        ConnectionError::Tls(rumqttc::TlsError::Io(io)) => io,
        error => error,
    };
    Failure::of(root)
}

/// What a CONNACK with an error means (section 3.2.2.3).
fn refused(code: ConnectReturnCode) -> Failure {
    let (loss, hint) = match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => return Failure::login_refused(),
        ConnectReturnCode::BadClientId => {
            (Loss::Refused, Some("the broker does not take the client id; set `client_id`"))
        }
        ConnectReturnCode::ServiceUnavailable => (Loss::Busy, None),
        _ => (Loss::Refused, None),
    };
    let cause = format!("the broker refused: {code:?}");
    Failure { cause, hint: hint.map(str::to_owned), loss, version_refused: false }
}
